package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// authority is a CA with its key, DER and PKCS#8.
type authority struct {
	Certificate []byte
	Key         []byte
}

// jwtKey is an EC P-256 key, PKCS#8.
type jwtKey struct {
	ID  string
	Key []byte
}

// svid is what a workload is given.
type svid struct {
	chain   [][]byte
	key     []byte
	serial  string
	expires time.Time
}

func serial() *big.Int {
	number, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	return number
}

func newAuthority(domain string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"SPIFFE"}, SerialNumber: serial().String()},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: domain}},
		NotBefore:             time.Now().Add(-10 * time.Second),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	return &authority{Certificate: certificate, Key: pkcs8}, err
}

// issued is the certificate of an entry, made when it is first asked for, as SPIRE makes it.
func (a *agent) issued(entry *entry) (*svid, error) {
	if known := a.issuedSvids[entry.id]; known != nil {
		return known, nil
	}
	var key crypto.Signer
	var err error
	if entry.KeyType == "rsa-2048" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	id, err := url.Parse(entry.SpiffeID)
	if err != nil {
		return nil, err
	}
	ca := a.Authorities[a.Signer]
	parent, err := x509.ParseCertificate(ca.Certificate)
	if err != nil {
		return nil, err
	}
	signer, err := x509.ParsePKCS8PrivateKey(ca.Key)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}},
		URIs:                  []*url.URL{id},
		DNSNames:              entry.DNSNames,
		NotBefore:             time.Now().Add(-10 * time.Second),
		NotAfter:              time.Now().Add(time.Duration(entry.TTL) * time.Second),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	made := &svid{[][]byte{certificate}, pkcs8, template.SerialNumber.String(), template.NotAfter}
	a.issuedSvids[entry.id] = made
	return made, err
}

// bundles is every trust domain's X.509 authorities, by its SPIFFE ID.
func (a *agent) bundles() (map[string][]byte, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	bundles := map[string][]byte{}
	for _, authority := range a.Authorities {
		own := "spiffe://" + a.TrustDomain
		bundles[own] = append(bundles[own], authority.Certificate...)
	}
	if a.WithoutOwn {
		bundles = map[string][]byte{}
	}
	for domain, authority := range a.Federated {
		bundles["spiffe://"+domain] = authority.Certificate
	}
	return bundles, a.version
}

func newJwtKey() (*jwtKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	return &jwtKey{ID: serial().Text(36), Key: pkcs8}, err
}

func (k *jwtKey) private() (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	if err != nil {
		return nil, err
	}
	return key.(*ecdsa.PrivateKey), nil
}

// jwtBundles is every trust domain's JWT keys as a JWK Set without use, as SPIRE's agent writes it.
func (a *agent) jwtBundles() (map[string][]byte, int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	keys := []map[string]string{}
	for _, one := range a.JwtKeys {
		key, err := one.private()
		if err != nil {
			return nil, 0, err
		}
		keys = append(keys, map[string]string{
			"kty": "EC", "crv": "P-256", "kid": one.ID,
			"x": encode(key.X.FillBytes(make([]byte, 32))),
			"y": encode(key.Y.FillBytes(make([]byte, 32))),
		})
	}
	own, err := json.Marshal(map[string]any{"keys": keys})
	bundles := map[string][]byte{"spiffe://" + a.TrustDomain: own}
	for domain := range a.Federated {
		bundles["spiffe://"+domain] = []byte(`{"keys":[]}`)
	}
	return bundles, a.version, err
}

// sign makes a JWT-SVID with the newest key.
func (a *agent) sign(entry *entry, audience []string) (token string, issued, expires time.Time, err error) {
	newest := a.JwtKeys[len(a.JwtKeys)-1]
	key, err := newest.private()
	if err != nil {
		return "", issued, expires, err
	}
	issued = time.Now()
	expires = issued.Add(5 * time.Minute)
	header := fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"JWT"}`, newest.ID)
	claims, err := json.Marshal(map[string]any{
		"sub": entry.SpiffeID, "aud": audience, "iat": issued.Unix(), "exp": expires.Unix(),
	})
	if err != nil {
		return "", issued, expires, err
	}
	signed := encode([]byte(header)) + "." + encode(claims)
	hash := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, hash[:])
	if err != nil {
		return "", issued, expires, err
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + encode(signature), issued, expires, nil
}

func encode(bytes []byte) string {
	return base64.RawURLEncoding.EncodeToString(bytes)
}
