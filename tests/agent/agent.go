package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"

	delegated "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
)

// agent is everything; what is written in upper case outlives the process.
type agent struct {
	delegated.UnsafeDelegatedIdentityServer

	mu      sync.Mutex
	path    string
	changed chan struct{}
	// Counts the changes of bundles.
	version       int
	issuedSvids   map[string]*svid
	subscriptions int

	TrustDomain string
	// Whether the caller is one of authorized_delegates.
	Authorized bool
	Entries    map[string]*entry
	// In the bundle, the oldest first; Signer of them signs.
	Authorities []*authority
	Signer      int
	JwtKeys     []*jwtKey
	// The authority of each federated trust domain.
	Federated map[string]*authority
	// No trust domain but the federated ones is in the bundles.
	WithoutOwn bool
}

// entry is a registration entry.
type entry struct {
	SpiffeID      string   `json:"spiffe_id"`
	Selectors     []string `json:"selectors"`
	TTL           int      `json:"ttl"`
	KeyType       string   `json:"key_type"`
	DNSNames      []string `json:"dns_names"`
	FederatesWith []string `json:"federates_with"`
	Hint          string   `json:"hint"`
	id            string
}

type command struct {
	Do    string `json:"do"`
	Name  string `json:"name"`
	Entry *entry `json:"entry"`
}

func openAgent(directory, trustDomain string) (*agent, error) {
	a := &agent{
		path:        filepath.Join(directory, "server.json"),
		changed:     make(chan struct{}),
		version:     1,
		issuedSvids: map[string]*svid{},
		TrustDomain: trustDomain,
		Authorized:  true,
		Entries:     map[string]*entry{},
		Federated:   map[string]*authority{},
	}
	if text, err := os.ReadFile(a.path); err == nil {
		return a, json.Unmarshal(text, a)
	}
	first, err := newAuthority(trustDomain)
	if err != nil {
		return nil, err
	}
	key, err := newJwtKey()
	a.Authorities, a.JwtKeys = []*authority{first}, []*jwtKey{key}
	return a, err
}

// obey does what a command says, and tells every subscriber.
func (a *agent) obey(c command) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	bundles := false
	switch c.Do {
	case "subscriptions":
		return a.subscriptions, nil
	case "entry":
		// Under a changed entry everything is signed anew.
		a.Entries[c.Name] = c.Entry
		delete(a.issuedSvids, c.Name)
	case "delete":
		delete(a.Entries, c.Name)
		delete(a.issuedSvids, c.Name)
	case "rotate":
		a.issuedSvids = map[string]*svid{}
	case "authorize":
		a.Authorized = c.Name == "yes"
	case "add-ca":
		next, err := newAuthority(a.TrustDomain)
		if err != nil {
			return nil, err
		}
		a.Authorities = append(a.Authorities, next)
		bundles = true
	case "use-ca":
		a.Signer = len(a.Authorities) - 1
		a.issuedSvids = map[string]*svid{}
	case "drop-ca":
		a.Authorities = a.Authorities[1:]
		a.Signer--
		bundles = true
	case "add-jwt-key":
		next, err := newJwtKey()
		if err != nil {
			return nil, err
		}
		a.JwtKeys = append(a.JwtKeys, next)
		bundles = true
	case "federate":
		next, err := newAuthority(c.Name)
		if err != nil {
			return nil, err
		}
		a.Federated[c.Name] = next
		bundles = true
	case "unfederate":
		delete(a.Federated, c.Name)
		bundles = true
	case "hide-own":
		a.WithoutOwn = c.Name == "yes"
		bundles = true
	default:
		return nil, fmt.Errorf("no such command")
	}
	if bundles {
		a.version++
	}
	close(a.changed)
	a.changed = make(chan struct{})
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return "ok", os.WriteFile(a.path, text, 0o600)
}

// matching is every entry whose selectors are all among these, in the order of their ids.
func (a *agent) matching(selectors []*types.Selector) []*entry {
	have := map[string]bool{}
	for _, selector := range selectors {
		have[selector.Type+":"+selector.Value] = true
	}
	var found []*entry
	for id, entry := range a.Entries {
		all := true
		for _, wanted := range entry.Selectors {
			all = all && have[wanted]
		}
		if all {
			entry.id = id
			found = append(found, entry)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].id < found[j].id })
	return found
}

func (a *agent) count(by int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subscriptions += by
}
