package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

const audience = "clients.test"

// watcher tells what each watch sees. Watches retry by themselves; what they failed of is told.
type watcher struct{}

func (watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	svid := x.DefaultSVID()
	bundle, err := x.Bundles.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		fail("x509", err)
		return
	}
	tellSVID("watch", svid, len(bundle.X509Authorities()))
}

func (watcher) OnX509ContextWatchError(err error) { fail("x509", err) }

func (watcher) OnX509BundlesUpdate(set *x509bundle.Set) {
	for _, bundle := range set.Bundles() {
		tell("x509-bundle", "domain", bundle.TrustDomain().Name(), "authorities", len(bundle.X509Authorities()))
	}
}

func (watcher) OnX509BundlesWatchError(err error) { fail("x509-bundle", err) }

func (watcher) OnJWTBundlesUpdate(set *jwtbundle.Set) {
	for _, bundle := range set.Bundles() {
		var kids []string
		for kid := range bundle.JWTAuthorities() {
			kids = append(kids, kid)
		}
		tell("jwt-bundle", "domain", bundle.TrustDomain().Name(), "kids", kids)
	}
}

func (watcher) OnJWTBundlesWatchError(err error) { fail("jwt-bundle", err) }

// follow runs every watch, both sources and the JWT calls until it is killed. A watch that ends is
// an error: nothing would follow any more.
func follow(ctx context.Context) error {
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	ended := make(chan error)
	watch := func(name string, run func() error) {
		go func() { ended <- fmt.Errorf("the watch of %s has ended: %w", name, run()) }()
	}
	watch("X.509 contexts", func() error { return client.WatchX509Context(ctx, watcher{}) })
	watch("X.509 bundles", func() error { return client.WatchX509Bundles(ctx, watcher{}) })
	watch("JWT bundles", func() error { return client.WatchJWTBundles(ctx, watcher{}) })
	watch("the X.509 source", func() error { return followX509Source(ctx) })

	jwt, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return err
	}
	every := time.NewTicker(500 * time.Millisecond)
	for {
		select {
		case err := <-ended:
			return err
		case <-every.C:
			if err := useJWT(ctx, client, jwt); err != nil {
				fail("jwt", err)
			}
		}
	}
}

func followX509Source(ctx context.Context) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	for {
		if err := tellSource(source); err != nil {
			return err
		}
		if err := source.WaitUntilUpdated(ctx); err != nil {
			return err
		}
	}
}

func tellSource(source *workloadapi.X509Source) error {
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	bundle, err := source.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return err
	}
	tellSVID("source", svid, len(bundle.X509Authorities()))
	return nil
}

// useJWT fetches a token, has it validated by the Workload API and with the bundle, and for an
// audience that it is not for.
func useJWT(ctx context.Context, client *workloadapi.Client, source *workloadapi.JWTSource) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	token := svid.Marshal()
	tell("jwt", "id", svid.ID.String(), "token", token)
	validated, err := client.ValidateJWTSVID(ctx, token, audience)
	if err != nil {
		return err
	}
	tell("validated", "by", "server", "id", validated.ID.String())
	validated, err = jwtsvid.ParseAndValidate(token, source, []string{audience})
	if err != nil {
		return err
	}
	tell("validated", "by", "bundle", "id", validated.ID.String())
	if _, err := client.ValidateJWTSVID(ctx, token, "another.test"); err != nil {
		tell("refused", "code", status.Code(err).String())
	} else {
		tell("accepted", "audience", "another.test")
	}
	return nil
}
