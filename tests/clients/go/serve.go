package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"

	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// serve answers HTTP and gRPC to one caller over mutual TLS, and follows its own SVID.
func serve(ctx context.Context, caller spiffeid.ID) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	authorizer := tlsconfig.AuthorizeID(caller)

	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSServerConfig(source, source, authorizer)
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.TLS.PeerCertificates[0].URIs[0])
	})
	ended := make(chan error)
	server := http.Server{Handler: hello, ErrorLog: silent}
	go func() { ended <- server.Serve(tls.NewListener(web, config)) }()

	rpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	services := grpc.NewServer(grpc.Creds(grpccredentials.MTLSServerCredentials(source, source, authorizer)))
	grpc_health_v1.RegisterHealthServer(services, health.NewServer())
	go func() { ended <- services.Serve(rpc) }()

	tell("listening", "http", web.Addr().String(), "grpc", rpc.Addr().String())
	go func() {
		for {
			if err := tellSource(source); err != nil {
				ended <- err
			}
			if err := source.WaitUntilUpdated(ctx); err != nil {
				ended <- err
			}
		}
	}()
	return <-ended
}
