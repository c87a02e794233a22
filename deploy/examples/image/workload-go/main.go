// An application that takes its identity from the SPIFFE Workload API with go-spiffe.
//
// Where the socket is, SPIFFE_ENDPOINT_SOCKET says; the library follows certificate and bundle, and
// comes back by itself when the driver was away. Once a second the application calls itself over
// mutual TLS, fetches a JWT-SVID and has it validated. It ends if its identity does not hold.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What the application has seen.
type seen struct {
	serial                      string
	renewals, handshakes, waits int
	tokens                      int
	jwt                         string
}

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	client, err := workloadapi.New(ctx)
	check(err)
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClient(client))
	check(err)
	svid, err := source.GetX509SVID()
	check(err)
	address := serve(source, svid.ID)

	seen := seen{}
	for ; ; time.Sleep(time.Second) {
		svid, err := source.GetX509SVID()
		check(err)
		if serial := svid.Certificates[0].SerialNumber.Text(16); serial != seen.serial {
			if seen.serial != "" {
				seen.renewals++
			}
			seen.serial = serial
		}
		check(call(source, svid.ID, address))
		seen.handshakes++
		check(seen.token(ctx, client, svid.ID))
		fmt.Printf("%s serial=%s renewals=%d handshakes=%d jwt=%s tokens=%d waits=%d\n",
			svid.ID, seen.serial, seen.renewals, seen.handshakes, seen.jwt, seen.tokens, seen.waits)
	}
}

// serve answers those who have this ID with it, over mutual TLS.
func serve(source *workloadapi.X509Source, id spiffeid.ID) string {
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(id))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	check(err)
	go func() {
		for {
			connection, err := listener.Accept()
			check(err)
			// A caller that is refused sees it; the server goes on.
			_, _ = io.WriteString(connection, id.String())
			_ = connection.Close()
		}
	}()
	return listener.Addr().String()
}

func call(source *workloadapi.X509Source, id spiffeid.ID, address string) error {
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id))
	connection, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	answer, err := io.ReadAll(connection)
	if err == nil && string(answer) != id.String() {
		err = fmt.Errorf("the server answered %q", answer)
	}
	return err
}

// token has a JWT-SVID made and validated. While nobody answers it waits; what the driver does not
// serve it does without.
func (seen *seen) token(ctx context.Context, client *workloadapi.Client, id spiffeid.ID) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "example"})
	if err == nil {
		svid, err = client.ValidateJWTSVID(ctx, svid.Marshal(), "example")
	}
	switch {
	case err == nil && svid.ID != id:
		return fmt.Errorf("the token is for %s", svid.ID)
	case err == nil:
		seen.jwt = "served"
		seen.tokens++
	case status.Code(err) == codes.Unimplemented:
		if seen.jwt != "unimplemented" {
			fmt.Println("no JWT-SVIDs here:", status.Convert(err).Message())
		}
		seen.jwt = "unimplemented"
	case status.Code(err) == codes.Unavailable:
		seen.waits++
	default:
		return err
	}
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
