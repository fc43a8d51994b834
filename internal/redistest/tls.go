package redistest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TLSServer is a [Server] that speaks TLS on a second port. The names are of PEM files.
type TLSServer struct {
	*Server

	// TLSAddr is the host and port where it speaks TLS, as "localhost:port".
	TLSAddr string

	// CA has the authority that has signed the certificate of the server.
	CA string

	// Cert and Key are a client's, signed by the same authority.
	Cert, Key string
}

// StartTLS is [Start] for a server that speaks TLS too, and asks its clients for
// certificates if clientCerts. Where redis-server was built without TLS, tb is skipped.
func StartTLS(tb testing.TB, clientCerts bool, args ...string) *TLSServer {
	tb.Helper()
	needBinary(tb)
	// A server ends at the first argument that it does not understand, and says which that is.
	path, _ := binary()
	out, _ := exec.Command(path, "--port", "0", "--tls-port", "0", "--maxmemory", "no-number").CombinedOutput()
	if !bytes.Contains(out, []byte("'maxmemory ")) {
		tb.Skipf("redistest: this redis-server was built without TLS: %s", out)
	}
	dir := tb.TempDir()
	authority := newCertificate(tb, nil, dir, "ca")
	newCertificate(tb, authority, dir, "server")
	newCertificate(tb, authority, dir, "client")
	file := func(name string) string { return filepath.Join(dir, name) }
	port := strconv.Itoa(freePort())
	answer := "no"
	if clientCerts {
		answer = "yes"
	}
	args = append([]string{
		"--tls-port", port, "--tls-auth-clients", answer,
		"--tls-ca-cert-file", file("ca.pem"), "--tls-cert-file", file("server.pem"), "--tls-key-file", file("server.key"),
	}, args...)
	return &TLSServer{
		Server: Start(tb, args...), TLSAddr: net.JoinHostPort("localhost", port),
		CA: file("ca.pem"), Cert: file("client.pem"), Key: file("client.key"),
	}
}

// signed is a certificate and its key.
type signed struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newCertificate writes <name>.pem and <name>.key for localhost, signed by an authority or,
// without one, by itself.
func newCertificate(tb testing.TB, by *signed, dir, name string) *signed {
	tb.Helper()
	fatal := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatalf("redistest: a certificate: %v", err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	fatal(err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	parent, parentKey := template, key
	if by != nil {
		parent, parentKey = by.certificate, by.key
	} else {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	fatal(err)
	certificate, err := x509.ParseCertificate(der)
	fatal(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(err)
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		fatal(os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600))
	}
	return &signed{certificate, key}
}
