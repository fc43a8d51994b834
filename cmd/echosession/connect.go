package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The variables of the environment that name the server. REDISCLI_AUTH is that of redis-cli.
const (
	urlVariable      = "REDIS_URL"
	passwordVariable = "REDISCLI_AUTH"
)

const connectionHelp = `Where Redis is, each command takes as its first URL, or from REDIS_URL:

	redis://[user@]host[:port][/database]     a server, or a node of a Cluster
	rediss://...                              the same over TLS
	unix:///path/to/redis.sock                a socket
	redis://a:26379,b:26379 -sentinel name    the primary of this name, by its Sentinels

The password stands in REDISCLI_AUTH, in REDIS_URL or in the file of -password-file. It is
refused on the command line, where every user of the machine can read it.

Without a connection the exit code is 3. On a Cluster a user needs +cluster|slots and +asking too.
`

// A target is which Redis a command talks to, and which sessions there.
type target struct {
	keyspace     string
	passwordFile string
	caFile       string
	certFile     string
	keyFile      string
	sentinel     string
	timeout      time.Duration
}

// define declares the flags of a target.
func (t *target) define(fs *flag.FlagSet) {
	fs.StringVar(&t.keyspace, "keyspace", "sess:", "prefix of the keys: Config.Keyspace of the program")
	fs.StringVar(&t.passwordFile, "password-file", "", "`file` whose first line is the password of Redis")
	fs.StringVar(&t.caFile, "cacert", "", "PEM `file` of the authorities that TLS trusts, in the place of the system's")
	fs.StringVar(&t.certFile, "cert", "", "PEM `file` of the certificate that the server asks for")
	fs.StringVar(&t.keyFile, "key", "", "PEM `file` of the key of -cert")
	fs.StringVar(&t.sentinel, "sentinel", "", "`name` of the primary; the URL then lists Sentinels")
	fs.DurationVar(&t.timeout, "timeout", 5*time.Second, "how long one call of Redis may take")
}

// defineEncryptionKeys declares the flag for the file that readEncryptionKeys reads.
func defineEncryptionKeys(fs *flag.FlagSet, file *string) {
	fs.StringVar(file, "encryption-key-file", "", "`file` with the keys that open encrypted sessions, one in base64 on each line: Config.EncryptionKeys")
}

// defineJSON declares the flag for output that programs read.
func defineJSON(fs *flag.FlagSet, on *bool) {
	fs.BoolVar(on, "json", false, "write one object of JSON, for programs")
}

// defineJSONLines is defineJSON where there is one line for each thing.
func defineJSONLines(fs *flag.FlagSet, on *bool, thing string) {
	fs.BoolVar(on, "json", false, "write an object of JSON on one line for each "+thing+", for programs")
}

// isURL reports whether an argument names a server.
func isURL(arg string) bool {
	for _, scheme := range []string{"redis://", "rediss://", "unix://"} {
		if strings.HasPrefix(arg, scheme) {
			return true
		}
	}
	return false
}

// takeURL returns the one argument that names a server, or what REDIS_URL says, and takes it
// out of the arguments.
func (t *target) takeURL(inv *invocation) (string, error) {
	found := ""
	var rest []string
	for _, arg := range inv.args {
		switch {
		case !isURL(arg):
			rest = append(rest, arg)
		case found != "":
			return "", errUsage("name one Redis, not two")
		default:
			found = arg
		}
	}
	inv.args = rest
	if found == "" {
		found = inv.getenv(urlVariable)
	}
	if found == "" {
		return "", errUsage("name a Redis, as in redis://localhost:6379, or set " + urlVariable)
	}
	if !isURL(found) {
		return "", errUsage("the URL of Redis begins with redis://, rediss:// or unix://")
	}
	return found, nil
}

// checkPasswords refuses an argument with a password.
func (inv *invocation) checkPasswords() error {
	for _, arg := range inv.args {
		if strings.Contains(arg, "://") && mayHavePassword(arg) { // whatever the scheme
			return errUsage("the password stands on the command line, where every user of the machine can read it: " +
				"put it into " + passwordVariable + ", the URL into " + urlVariable + ", or use -password-file; and change it if others were logged in")
		}
	}
	return nil
}

// mayHavePassword reports whether something stands before an @ that may be a password. One
// that is not written as a URL demands may hold any character, "/" and "@" too.
func mayHavePassword(text string) bool {
	_, rest, _ := strings.Cut(text, "://")
	at := strings.LastIndex(rest, "@")
	_, password, _ := strings.Cut(rest[:max(0, at)], ":")
	return password != "" || strings.Contains(rest, "password=")
}

// isMisread reports whether a password holds characters that end it too early, so that a part
// of it would be taken for a host.
func isMisread(text string) bool {
	_, rest, _ := strings.Cut(text, "://")
	return strings.Contains(rest, "#") || strings.ContainsAny(rest[:max(0, strings.LastIndex(rest, "@"))], ",/?")
}

// settings reads the URL and the flags. No error quotes the URL or says what in it is wrong:
// that may be a password.
func (t *target) settings(inv *invocation) (*redis.UniversalOptions, error) {
	text, err := t.takeURL(inv)
	if err != nil {
		return nil, err
	}
	const unreadable = "the URL of Redis cannot be read: write redis://host:port/database, and the special characters of a password as in %2F"
	if isMisread(text) {
		return nil, errUsage(unreadable)
	}
	var more []string // hosts behind the first one: net/url knows one alone
	if scheme, rest, _ := strings.Cut(text, "://"); scheme != "unix" {
		hosts, path, slash := strings.Cut(rest, "/")
		host, others, several := strings.Cut(hosts, ",")
		if several {
			more = strings.Split(others, ",")
		}
		if t.sentinel != "" {
			host = withPort(host, sentinelPort)
		}
		text = scheme + "://" + host
		if slash && path != "" {
			text += "/" + path
		}
	}
	o, err := redis.ParseURL(text)
	if err != nil {
		return nil, errUsage(unreadable)
	}
	if err := t.checkPassword(inv, o); err != nil {
		return nil, err
	}
	if err := t.useTLS(o); err != nil {
		return nil, err
	}
	port := redisPort
	if t.sentinel != "" {
		port = sentinelPort
	}
	for i := range more {
		more[i] = withPort(more[i], port)
	}
	return &redis.UniversalOptions{
		Addrs: append([]string{o.Addr}, more...), DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		MasterName: t.sentinel, Dialer: dialerOf(o.Network, t.timeout),
		DialTimeout: t.timeout, ReadTimeout: t.timeout, WriteTimeout: t.timeout, PoolTimeout: t.timeout,
		ContextTimeoutEnabled: true, MaxRetries: 1, DialerRetries: 1, Protocol: o.Protocol, DisableIdentity: true,
	}, nil
}

const (
	redisPort    = "6379"
	sentinelPort = "26379"
)

// withPort adds a port to a host that has none.
func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host[strings.LastIndex(host, "@")+1:]); err == nil {
		return host
	}
	return host + ":" + port
}

// dialerOf returns nil for the client's own dialer, which makes TCP connections.
func dialerOf(network string, timeout time.Duration) func(ctx context.Context, _, addr string) (net.Conn, error) {
	if network != "unix" {
		return nil
	}
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		return (&net.Dialer{Timeout: timeout}).DialContext(ctx, "unix", addr)
	}
}

func (t *target) checkPassword(inv *invocation, o *redis.Options) error {
	if t.passwordFile == "" {
		o.Password = cmp.Or(o.Password, inv.getenv(passwordVariable))
		return nil
	}
	text, err := os.ReadFile(t.passwordFile)
	if err != nil {
		return fmt.Errorf("the file of the password: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if o.Password = strings.TrimSuffix(line, "\r"); o.Password == "" {
		return errUsage("the first line of " + t.passwordFile + " is empty: it is to be the password")
	}
	return nil
}

func (t *target) useTLS(o *redis.Options) error {
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName = "" // each server's own: a Cluster and Sentinels name others
	}
	if t.caFile == "" && t.certFile == "" && t.keyFile == "" {
		return nil
	}
	if o.TLSConfig == nil {
		return errUsage("-cacert, -cert and -key are for TLS: write rediss:// in the URL")
	}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return fmt.Errorf("-cacert: %w", err)
		}
		o.TLSConfig.RootCAs = x509.NewCertPool()
		if !o.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return errUsage(t.caFile + " has no certificate in PEM form")
		}
	}
	if t.certFile != "" || t.keyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
		if err != nil {
			return fmt.Errorf("-cert and -key: %w", err)
		}
		o.TLSConfig.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// connect connects to the server, which may be a node of a Cluster: then the client is one
// for all of it. The error says what to check.
func (t *target) connect(ctx context.Context, inv *invocation) (redis.UniversalClient, error) {
	if t.keyspace == "" {
		return nil, errUsage("the keyspace is empty: leave out -keyspace for that of a program that sets none, which is sess:")
	}
	o, err := t.settings(inv)
	if err != nil {
		return nil, err
	}
	o.IsClusterMode = len(o.Addrs) > 1 && t.sentinel == ""
	client := redis.NewUniversalClient(o)
	clustered := o.IsClusterMode
	// A user may be allowed little: only what keeps sessions. And after a save that failed,
	// Redis refuses even a PING.
	if err = client.Ping(ctx).Err(); err == nil || redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "MISCONF") {
		err = nil
		if !clustered {
			clustered, err = isCluster(ctx, client, t.keyspace)
		}
	}
	if err != nil {
		_ = client.Close()
		return nil, t.explain(err, o)
	}
	if clustered && !o.IsClusterMode {
		_ = client.Close()
		if o.DB != 0 {
			return nil, errUsage("a Cluster has database 0 alone")
		}
		o.IsClusterMode = true
		client = redis.NewUniversalClient(o)
	}
	return client, nil
}

// isCluster asks a server whether it is a node of a Cluster. A user who may not see that asks
// for some keys: a node has not all of them.
func isCluster(ctx context.Context, client redis.UniversalClient, keyspace string) (bool, error) {
	info, err := client.Info(ctx, "cluster").Result()
	if !redis.HasErrorPrefix(err, "NOPERM") {
		return strings.Contains(info, "cluster_enabled:1"), err
	}
	for range 20 {
		err := client.Get(ctx, keyspace+rand.Text()).Err()
		if _, moved := redis.IsMovedError(err); moved {
			return true, nil
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			return false, err
		}
	}
	return false, nil
}

func isTimeout(err error) bool {
	late, ok := errors.AsType[net.Error](err)
	return ok && late.Timeout()
}

// silence keeps go-redis from writing to the error output beside the errors that it returns.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// explain adds to an error of the connection what to look at.
func (t *target) explain(err error, o *redis.UniversalOptions) error {
	text := err.Error()
	hint := ""
	switch {
	case redis.HasErrorPrefix(err, "NOAUTH"), redis.HasErrorPrefix(err, "WRONGPASS"):
		hint = "is the password in " + passwordVariable + " or in -password-file that of this user?"
	case redis.HasErrorPrefix(err, "NOPERM"):
		hint = "the user may not do this: its rights are too few"
	case redis.HasErrorPrefix(err, "DENIED"):
		hint = "the server is in protected mode: connect from its own machine, or give it a password"
	case t.sentinel != "":
		hint = "does the URL list Sentinels, and do they know the primary " + t.sentinel + "?"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		hint = "the server does not speak TLS on this port: write redis://"
	case strings.Contains(text, "certificate"), strings.Contains(text, "x509"):
		hint = "does -cacert name the authority that has signed the server's certificate?"
	case o.TLSConfig != nil && isTimeout(err):
		hint = "does the server speak TLS on this port? If not, write redis://"
	case o.TLSConfig == nil && (errors.Is(err, io.EOF) || strings.Contains(text, "connection reset")):
		hint = "does the server speak TLS on this port? Then write rediss://"
	case strings.Contains(text, "refused"):
		hint = "is Redis running there?"
	}
	if hint != "" {
		return fmt.Errorf("no connection to Redis: %w; %s", err, hint)
	}
	return fmt.Errorf("no connection to Redis: %w", err)
}
