package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// How far a replica may be behind: a failover to it loses that much.
const (
	laggingBytes = 1 << 20
	laggingFor   = 5 * time.Second
)

func checkReplicas(_ context.Context, x *examination, n *node, r *result) {
	if !n.needs(r, "role") {
		return
	}
	if n.info["role"] == "slave" {
		r.critical("not-the-primary", "Use the address of the primary, "+net.JoinHostPort(n.info["master_host"], n.info["master_port"])+", or let Sentinel find it: -sentinel.",
			"this is a replica (its link to the primary is %s): it refuses writes", n.info["master_link_status"])
		return
	}
	replicas, _ := n.number("connected_slaves")
	if wanted, ok := numberOf(n.config["min-replicas-to-write"]); ok && wanted > 0 {
		if good, ok := n.number("min_slaves_good_slaves"); ok && good < wanted {
			r.critical("too-few-replicas", "Bring the replicas back, or lower min-replicas-to-write.",
				"%s connected, and min-replicas-to-write is %d: Redis refuses writes, and nobody can log in", countOf(good, "good replica"), wanted)
		}
	}
	behind := 0
	for i := range replicas {
		if x.lagging(n, n.info[fmt.Sprintf("slave%d", i)], r) {
			behind++
		}
	}
	_, cluster := x.client.(*redis.ClusterClient)
	switch {
	case behind > 0:
	case replicas > 0:
		r.ok("%s, none of them behind", countOf(replicas, "replica"))
	case cluster || x.options.MasterName != "":
		r.warning("no-replica", "Add a replica: without one there is nothing to fail over to.",
			"no replica is connected: when this server is lost, so are its sessions")
	default:
		r.ok("no replica: while this server is down, nobody has a session")
	}
}

func numberOf(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// lagging reports whether a replica is behind. INFO has it as
// ip=10.0.0.2,port=6379,state=online,offset=168,lag=1.
func (x *examination) lagging(n *node, field string, r *result) bool {
	state, name := "", ""
	for part := range strings.SplitSeq(field, ",") {
		switch k, v, _ := strings.Cut(part, "="); k {
		case "ip":
			name = v
		case "port":
			name = net.JoinHostPort(name, v)
		case "state":
			state = v
		}
	}
	name = cmp.Or(name, "a replica")
	if state != "online" {
		r.warning("a-lagging-replica", "Wait until it has copied all data; if it never does, look at its log.",
			"the replica %s is not in order (%s): a failover to it loses sessions", name, cmp.Or(state, "its state is unknown"))
		return true
	}
	offset, ok := numberIn(field, "offset")
	lag, _ := numberIn(field, "lag")
	head, known := n.number("master_repl_offset")
	bytes := head - offset
	silent := time.Duration(lag) * time.Second
	if silent < laggingFor && (!ok || !known || bytes < laggingBytes) {
		return false
	}
	r.warning("a-lagging-replica", "Look at the network to it and at what it does; WaitReplicas makes each write wait for replicas.",
		"the replica %s is %s behind, and was last heard of %s ago: a failover to it brings back sessions that were ended, and loses new ones",
		name, sizeOf(max(0, bytes)), lasting(silent))
	return true
}

// checkFailover looks at what sees to it that another server takes over.
func checkFailover(ctx context.Context, x *examination, r *result) {
	switch {
	case x.options.MasterName != "":
		x.checkSentinels(ctx, r)
	case x.isCluster():
		x.checkCluster(ctx, r)
	default:
		r.ok("one server alone, found by its address; name a Sentinel or a node of a Cluster to have them looked at")
	}
}

func (x *examination) isCluster() bool {
	_, ok := x.client.(*redis.ClusterClient)
	return ok
}

func sentinelClient(x *examination, addr string) *redis.SentinelClient {
	o := x.options
	return redis.NewSentinelClient(&redis.Options{
		Addr: addr, Username: o.SentinelUsername, Password: o.SentinelPassword, TLSConfig: o.TLSConfig, Dialer: o.Dialer,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, ContextTimeoutEnabled: true,
		MaxRetries: -1, DisableIdentity: true,
	})
}

// A sentinelView is what one Sentinel says.
type sentinelView struct {
	addr    string
	primary string
	state   map[string]string // of SENTINEL MASTER
	quorum  error             // of SENTINEL CKQUORUM
	down    []string          // replicas that it finds down
}

func (v *sentinelView) number(name string) int64 {
	n, _ := numberOf(v.state[name])
	return n
}

func (x *examination) checkSentinels(ctx context.Context, r *result) {
	name := x.options.MasterName
	addrs := slices.Clone(x.options.Addrs)
	var views []*sentinelView
	for i := 0; i < len(addrs); i++ { // it grows by those that the Sentinels name
		v, others, err := x.ask(ctx, addrs[i])
		if err != nil {
			r.warning("a-lost-sentinel", "Bring it back, or take it out of the list that your programs have.",
				"the Sentinel %s does not answer about %s: %s", addrs[i], name, reply(err))
			continue
		}
		views = append(views, v)
		for _, other := range others {
			if !slices.Contains(addrs, other) {
				addrs = append(addrs, other)
			}
		}
	}
	if len(views) == 0 {
		return
	}
	before := len(r.findings)
	judgeSentinels(views, r)
	if len(r.findings) == before {
		v := views[0]
		r.ok("%s, quorum %d; the primary counts as down after %s", countOf(v.number("num-other-sentinels")+1, "Sentinel"), v.number("quorum"),
			shortTime(time.Duration(v.number("down-after-milliseconds"))*time.Millisecond))
	}
}

// ask asks a Sentinel about the primary, and about the other Sentinels.
func (x *examination) ask(ctx context.Context, addr string) (v *sentinelView, others []string, err error) {
	s := sentinelClient(x, addr)
	defer s.Close()
	name := x.options.MasterName
	v = &sentinelView{addr: addr}
	if v.state, err = s.Master(ctx, name).Result(); err != nil {
		return nil, nil, err
	}
	v.primary = net.JoinHostPort(v.state["ip"], v.state["port"])
	v.quorum = s.CkQuorum(ctx, name).Err()
	replicas, err := s.Replicas(ctx, name).Result()
	for _, replica := range replicas {
		if strings.Contains(replica["flags"], "down") || strings.Contains(replica["flags"], "disconnected") {
			v.down = append(v.down, net.JoinHostPort(replica["ip"], replica["port"]))
		}
	}
	list, _ := s.Sentinels(ctx, name).Result()
	for _, other := range list {
		others = append(others, net.JoinHostPort(other["ip"], other["port"]))
	}
	return v, others, err
}

// judgeSentinels adds what is wrong in what the Sentinels say.
func judgeSentinels(views []*sentinelView, r *result) {
	v := views[0]
	sentinels, quorum := v.number("num-other-sentinels")+1, v.number("quorum")
	majority := sentinels/2 + 1
	for _, other := range views[1:] {
		if other.primary != v.primary {
			r.critical("sentinels-disagree", "Wait for a failover to end. If that does not help, compare the Sentinels' files, and SENTINEL RESET those that are wrong.",
				"the Sentinel %s names the primary %s, and %s names %s: some programs write where others do not read", v.addr, v.primary, other.addr, other.primary)
		}
	}
	for _, one := range views {
		if one.quorum != nil && !redis.HasErrorPrefix(one.quorum, "NOPERM") {
			r.critical("no-quorum", "Bring the Sentinels back; the quorum is to be a majority of them.",
				"the Sentinel %s could not agree to a failover with the others: %s", one.addr, reply(one.quorum))
		}
		for _, replica := range one.down {
			r.warning("a-lost-replica", "Bring it back, or SENTINEL RESET what is gone for good.", "the Sentinels find the replica %s down", replica)
		}
	}
	if strings.Contains(v.state["flags"], "down") {
		r.critical("the-primary-is-down", "Wait for the failover, and look at the server.", "the Sentinel %s finds the primary %s down", v.addr, v.primary)
	}
	if quorum > sentinels {
		r.critical("no-quorum", "Set the quorum to "+strconv.FormatInt(majority, 10)+", or start more Sentinels.",
			"the quorum is %d of %s: there is never a failover", quorum, countOf(sentinels, "Sentinel"))
	} else if quorum < majority {
		r.warning("a-small-quorum", "Set the quorum to "+strconv.FormatInt(majority, 10)+": SENTINEL SET "+v.state["name"]+" quorum, on each of them.",
			"the quorum is %d of %s: one that sees nothing of the network begins failovers without need, which log users out", quorum, countOf(sentinels, "Sentinel"))
	}
	if sentinels < 3 {
		r.warning("few-sentinels", "Run three, on machines that do not fail together.",
			"%s: when one is lost, the rest is no majority, and there is no failover", countOf(sentinels, "Sentinel"))
	}
	if after := time.Duration(v.number("down-after-milliseconds")) * time.Millisecond; after > 10*time.Second {
		r.warning("a-slow-failover", "Set down-after-milliseconds to about 5000.",
			"a primary counts as down after %s: for that long all requests with sessions fail", shortTime(after))
	}
}
