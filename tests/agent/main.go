// A stand-in for a SPIRE agent and the server behind it: the Delegated Identity API over the messages
// of SPIRE's own SDK, at a Unix socket. It takes commands on standard input, one JSON object a line,
// and answers each with a line. What a server would remember is kept in a directory, so that it can
// be killed; keys and certificates of workloads are not, as in SPIRE.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"

	delegated "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"google.golang.org/grpc"
)

func main() {
	socket := flag.String("socket", "", "where to serve")
	state := flag.String("state", "", "directory of what outlives this process")
	trustDomain := flag.String("trust-domain", "example.org", "the own trust domain")
	flag.Parse()

	agent, err := openAgent(*state, *trustDomain)
	if err != nil {
		log.Fatal(err)
	}
	os.Remove(*socket)
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	delegated.RegisterDelegatedIdentityServer(server, agent)
	go func() { log.Fatal(server.Serve(listener)) }()

	fmt.Println(`{"ready":true}`)
	commands := bufio.NewScanner(os.Stdin)
	commands.Buffer(nil, 1<<20)
	for commands.Scan() {
		var command command
		answer := any(nil)
		err := json.Unmarshal(commands.Bytes(), &command)
		if err == nil {
			answer, err = agent.obey(command)
		}
		if err != nil {
			log.Fatalf("%s: %v", commands.Text(), err)
		}
		line, err := json.Marshal(answer)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(line))
	}
}
