package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A node is one server that holds sessions, and what it says of itself.
type node struct {
	addr   string
	client *redis.Client

	info    map[string]string // the fields of INFO
	infoErr error             // why there are no fields

	config    map[string]string // some parameters of CONFIG GET
	configErr error             // why there are no parameters
}

// settingNames are the parameters of the server that doctor reads. None of them is a secret.
var settingNames = []string{
	"save", "appendonly", "appendfsync", "stop-writes-on-bgsave-error", "maxclients", "timeout", "client-output-buffer-limit",
	"min-replicas-to-write", "cluster-require-full-coverage", "cluster-node-timeout",
}

// findNodes returns the servers that hold sessions, and asks them what they are.
func findNodes(ctx context.Context, x *examination) ([]*node, error) {
	var nodes []*node
	switch c := x.client.(type) {
	case *redis.ClusterClient:
		var mu sync.Mutex
		err := c.ForEachMaster(ctx, func(_ context.Context, client *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			nodes = append(nodes, &node{addr: client.Options().Addr, client: client})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("the nodes of the Cluster: %w", err)
		}
		slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.addr, b.addr) })
	case *redis.Client:
		nodes = append(nodes, &node{addr: addressOf(ctx, x, c), client: c})
	default:
		return nil, fmt.Errorf("a %T is no client that doctor knows", x.client)
	}
	var lost error
	nodes = slices.DeleteFunc(nodes, func(n *node) bool {
		text, err := n.client.Info(ctx).Result()
		n.info, n.infoErr = parseInfo(text), err
		if err != nil && !isReply(err) {
			x.lost, lost = append(x.lost, n), err
			return true
		}
		n.readConfig(ctx)
		return false
	})
	if len(nodes) == 0 {
		return nil, cmp.Or(ctx.Err(), lost, errors.New("the Cluster has no primary server"))
	}
	return nodes, ctx.Err()
}

// addressOf returns the address of the server that a client has found by Sentinels, or that
// of the URL.
func addressOf(ctx context.Context, x *examination, c *redis.Client) string {
	if x.options.MasterName == "" {
		return c.Options().Addr
	}
	for _, addr := range x.options.Addrs {
		s := sentinelClient(x, addr)
		hostPort, err := s.GetMasterAddrByName(ctx, x.options.MasterName).Result()
		_ = s.Close()
		if err == nil && len(hostPort) == 2 {
			return net.JoinHostPort(hostPort[0], hostPort[1])
		}
	}
	return c.Options().Addr
}

// readConfig reads each parameter by itself: before Redis 7 a command reads one.
func (n *node) readConfig(ctx context.Context) {
	n.config = make(map[string]string)
	pipe := n.client.Pipeline()
	var replies []*redis.MapStringStringCmd
	for _, name := range settingNames {
		replies = append(replies, pipe.ConfigGet(ctx, name))
	}
	_, _ = pipe.Exec(ctx)
	for _, reply := range replies {
		if err := reply.Err(); err != nil && n.configErr == nil {
			n.configErr = err
		}
		for name, value := range reply.Val() {
			n.config[name] = value
		}
	}
	if n.configErr == nil && len(n.config) == 0 {
		n.configErr = errors.New("CONFIG GET names no parameter")
	}
}

// parseInfo reads what INFO replies: name:value lines below headings.
func parseInfo(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if ok && !strings.HasPrefix(name, "#") {
			fields[name] = value
		}
	}
	return fields
}

// number reads a field of INFO. A server that is not Redis may lack it.
func (n *node) number(name string) (int64, bool) {
	value, err := strconv.ParseInt(n.info[name], 10, 64)
	return value, err == nil
}

// numberIn reads name=value in a field with several of them, such as keys=1,expires=1.
func numberIn(field, name string) (int64, bool) {
	for part := range strings.SplitSeq(field, ",") {
		if k, v, _ := strings.Cut(part, "="); k == name {
			value, err := strconv.ParseInt(v, 10, 64)
			return value, err == nil
		}
	}
	return 0, false
}

// since says from when the counters of a server count.
func (n *node) since() string {
	seconds, ok := n.number("uptime_in_seconds")
	if !ok {
		return "since the server started"
	}
	return "since the server started, " + lasting(time.Duration(seconds)*time.Second) + " ago"
}

// needs reports whether INFO has a field. If it has not, the result says so.
func (n *node) needs(r *result, fields ...string) bool {
	if n.infoErr != nil {
		r.denied("+info", n.infoErr)
		return false
	}
	for _, field := range fields {
		if _, ok := n.info[field]; !ok {
			r.unknown("what-doctor-may-not-ask", "Ask the provider of this Redis.", "INFO does not say %s", field)
			return false
		}
	}
	return true
}
