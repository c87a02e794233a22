package main

import (
	"context"
	"strings"

	delegated "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What SPIRE's agent answers, to the letter.
var (
	notDelegate = status.Error(codes.PermissionDenied, "caller not configured as an authorized delegate")
	noIdentity  = status.Error(codes.PermissionDenied, "no identity issued")
	noSelectors = status.Error(codes.InvalidArgument, "must provide either selectors or non-zero PID, but not both")
)

func (a *agent) SubscribeToX509SVIDs(request *delegated.SubscribeToX509SVIDsRequest, stream delegated.DelegatedIdentity_SubscribeToX509SVIDsServer) error {
	if len(request.Selectors) == 0 || request.Pid != 0 {
		return noSelectors
	}
	a.count(1)
	defer a.count(-1)
	var last string
	return a.follow(stream.Context(), func() error {
		response, version, err := a.svids(request.Selectors)
		if err != nil || version == last {
			return err
		}
		last = version
		return stream.Send(response)
	})
}

// svids is everything that a workload with these selectors is given, in the order of the entries' ids.
func (a *agent) svids(selectors []*types.Selector) (*delegated.SubscribeToX509SVIDsResponse, string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	response := &delegated.SubscribeToX509SVIDsResponse{}
	version := "at least once"
	federates := map[string]bool{}
	for _, entry := range a.matching(selectors) {
		svid, err := a.issued(entry)
		if err != nil {
			return nil, "", err
		}
		response.X509Svids = append(response.X509Svids, &delegated.X509SVIDWithKey{
			X509Svid: &types.X509SVID{
				CertChain: svid.chain,
				Id:        idOf(entry.SpiffeID),
				ExpiresAt: svid.expires.Unix(),
				Hint:      entry.Hint,
			},
			X509SvidKey: svid.key,
		})
		version += " " + svid.serial
		for _, domain := range entry.FederatesWith {
			if !federates[domain] {
				federates[domain] = true
				response.FederatesWith = append(response.FederatesWith, domain)
				version += " " + domain
			}
		}
	}
	return response, version, nil
}

func (a *agent) SubscribeToX509Bundles(_ *delegated.SubscribeToX509BundlesRequest, stream delegated.DelegatedIdentity_SubscribeToX509BundlesServer) error {
	var last int
	return a.follow(stream.Context(), func() error {
		bundles, version := a.bundles()
		if version == last {
			return nil
		}
		last = version
		return stream.Send(&delegated.SubscribeToX509BundlesResponse{CaCertificates: bundles})
	})
}

func (a *agent) SubscribeToJWTBundles(_ *delegated.SubscribeToJWTBundlesRequest, stream delegated.DelegatedIdentity_SubscribeToJWTBundlesServer) error {
	var last int
	return a.follow(stream.Context(), func() error {
		bundles, version, err := a.jwtBundles()
		if err != nil || version == last {
			return err
		}
		last = version
		return stream.Send(&delegated.SubscribeToJWTBundlesResponse{Bundles: bundles})
	})
}

func (a *agent) FetchJWTSVIDs(_ context.Context, request *delegated.FetchJWTSVIDsRequest) (*delegated.FetchJWTSVIDsResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(request.Audience) == 0 {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	if !a.Authorized {
		return nil, notDelegate
	}
	if len(request.Selectors) == 0 || request.Pid != 0 {
		return nil, noSelectors
	}
	response := &delegated.FetchJWTSVIDsResponse{}
	for _, entry := range a.matching(request.Selectors) {
		token, issued, expires, err := a.sign(entry, request.Audience)
		if err != nil {
			return nil, err
		}
		response.Svids = append(response.Svids, &types.JWTSVID{
			Token:     token,
			Id:        idOf(entry.SpiffeID),
			IssuedAt:  issued.Unix(),
			ExpiresAt: expires.Unix(),
			Hint:      entry.Hint,
		})
	}
	if len(response.Svids) == 0 {
		return nil, noIdentity
	}
	return response, nil
}

// follow tells a subscriber what is, and again after each change, while it is a delegate.
func (a *agent) follow(ctx context.Context, tell func() error) error {
	for {
		a.mu.Lock()
		changed, authorized := a.changed, a.Authorized
		a.mu.Unlock()
		if !authorized {
			return notDelegate
		}
		if err := tell(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func idOf(id string) *types.SPIFFEID {
	domain, path, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	return &types.SPIFFEID{TrustDomain: domain, Path: "/" + path}
}
