// What an application does with go-spiffe, told as one JSON object a line.
//
// usage: clients follow
//
//	clients serve CALLER
//	clients call SERVER STRANGER HTTP-ADDRESS GRPC-ADDRESS
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func main() {
	ctx := context.Background()
	args := os.Args[1:]
	var err error
	switch {
	case len(args) == 1 && args[0] == "follow":
		err = follow(ctx)
	case len(args) == 2 && args[0] == "serve":
		err = serve(ctx, spiffeid.RequireFromString(args[1]))
	case len(args) == 5 && args[0] == "call":
		server, stranger := spiffeid.RequireFromString(args[1]), spiffeid.RequireFromString(args[2])
		err = call(ctx, server, stranger, args[3], args[4])
	default:
		err = fmt.Errorf("usage: clients follow|serve|call")
	}
	if err != nil {
		fail("program", err)
		os.Exit(1)
	}
}
