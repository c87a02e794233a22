package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// The handshakes that must fail are no news to the server's log.
var silent = log.New(io.Discard, "", 0)

// answerer is who was at the other end; gRPC shows no serial.
type answerer struct {
	id     spiffeid.ID
	serial string
}

// caller makes calls of every kind and counts them. No call is ever tried again.
type caller struct {
	source   *workloadapi.X509Source
	server   spiffeid.ID
	stranger spiffeid.ID
	http     string
	grpc     string
	mutex    sync.Mutex
	made     map[string]int
	serial   string
}

// call makes calls until it is killed.
func call(ctx context.Context, server, stranger spiffeid.ID, http, grpc string) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	c := &caller{source: source, server: server, stranger: stranger, http: http, grpc: grpc, made: map[string]int{}}
	go c.sum()
	keptHTTP := c.client(server, true)
	keptGRPC, err := c.dial(server)
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		name string
		call func(context.Context) (answerer, error)
	}{
		{"http", func(ctx context.Context) (answerer, error) { return c.get(ctx, keptHTTP) }},
		{"http, new connection", func(ctx context.Context) (answerer, error) {
			return c.get(ctx, c.client(server, false))
		}},
		{"grpc", func(ctx context.Context) (answerer, error) { return check(ctx, keptGRPC) }},
		{"grpc, new connection", c.checkAnew},
	} {
		go c.repeat(ctx, kind.name, kind.call)
	}
	go c.repeat(ctx, "refused", c.refused)
	for {
		if err := tellSource(source); err != nil {
			return err
		}
		if err := source.WaitUntilUpdated(ctx); err != nil {
			return err
		}
	}
}

func (c *caller) repeat(ctx context.Context, kind string, call func(context.Context) (answerer, error)) {
	for range time.Tick(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		from, err := call(ctx)
		cancel()
		if err != nil {
			fail(kind, err)
			continue
		}
		c.count(kind, from)
	}
}

// count also tells whom a new connection led to, whenever that is another certificate.
func (c *caller) count(kind string, from answerer) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.made[kind]++
	if kind == "http, new connection" && from.serial != c.serial {
		c.serial = from.serial
		tell("peer", "id", from.id.String(), "serial", from.serial)
	}
}

func (c *caller) sum() {
	for range time.Tick(500 * time.Millisecond) {
		c.mutex.Lock()
		made := map[string]int{}
		for kind, count := range c.made {
			made[kind] = count
		}
		c.mutex.Unlock()
		tell("calls", "made", made)
	}
}

func (c *caller) client(server spiffeid.ID, kept bool) *http.Client {
	config := tlsconfig.MTLSClientConfig(c.source, c.source, tlsconfig.AuthorizeID(server))
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: !kept}}
}

func (c *caller) get(ctx context.Context, client *http.Client) (answerer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.http, strings.NewReader("hello"))
	if err != nil {
		return answerer{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return answerer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answerer{}, err
	}
	own, err := c.source.GetX509SVID()
	if err != nil {
		return answerer{}, err
	}
	if seen := strings.TrimSpace(string(body)); seen != own.ID.String() {
		return answerer{}, fmt.Errorf("the server saw %s", seen)
	}
	certificate := response.TLS.PeerCertificates[0]
	id, err := x509svid.IDFromCert(certificate)
	return answerer{id, certificate.SerialNumber.Text(16)}, err
}

func (c *caller) dial(server spiffeid.ID) (*grpc.ClientConn, error) {
	mtls := grpccredentials.MTLSClientCredentials(c.source, c.source, tlsconfig.AuthorizeID(server))
	return grpc.NewClient(c.grpc, grpc.WithTransportCredentials(mtls), grpc.WithDisableRetry())
}

func check(ctx context.Context, connection *grpc.ClientConn) (answerer, error) {
	var from peer.Peer
	_, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&from))
	if err != nil {
		return answerer{}, err
	}
	id, ok := grpccredentials.PeerIDFromPeer(&from)
	if !ok {
		return answerer{}, errors.New("the server has no SPIFFE ID")
	}
	return answerer{id: id}, nil
}

func (c *caller) checkAnew(ctx context.Context) (answerer, error) {
	connection, err := c.dial(c.server)
	if err != nil {
		return answerer{}, err
	}
	defer connection.Close()
	return check(ctx, connection)
}

// refused is a call to somebody else: it must not get through.
func (c *caller) refused(ctx context.Context) (answerer, error) {
	_, err := c.get(ctx, c.client(c.stranger, false))
	if err == nil {
		return answerer{}, errors.New("a server with another ID was accepted")
	}
	if !strings.Contains(err.Error(), "unexpected ID") {
		return answerer{}, err
	}
	return answerer{}, nil
}
