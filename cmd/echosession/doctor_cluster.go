package main

import (
	"context"
	"slices"
	"strings"
)

const clusterSlots = 16384

// A member is one line of CLUSTER NODES.
type member struct {
	id, addr, primary string
	flags             []string
	connected         bool
	slots             bool // it has some
}

func (m *member) is(flag string) bool { return slices.Contains(m.flags, flag) }

// parseMembers reads what CLUSTER NODES replies.
func parseMembers(text string) (members []member) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		addr, _, _ := strings.Cut(f[1], "@")
		members = append(members, member{
			id: f[0], addr: addr, flags: strings.Split(f[2], ","), primary: f[3], connected: f[7] == "connected", slots: len(f) > 8,
		})
	}
	return members
}

func (x *examination) checkCluster(ctx context.Context, r *result) {
	var members []member
	sound := 0
	for _, n := range x.nodes {
		r.server = n.addr
		text, err := n.client.ClusterInfo(ctx).Result()
		if err != nil {
			r.denied("+cluster|info", err)
			continue
		}
		if judgeCluster(parseInfo(text), r) {
			sound++
		}
		if len(members) == 0 {
			text, err := n.client.ClusterNodes(ctx).Result()
			if err != nil {
				r.denied("+cluster|nodes", err)
				continue
			}
			members = parseMembers(text)
		}
	}
	r.server = ""
	if len(members) > 0 && judgeMembers(members, x.nodes[0].config["cluster-require-full-coverage"], r) && sound == len(x.nodes) {
		r.ok("all %s slots are served, and each primary has a replica", grouped(clusterSlots))
	}
}

// judgeCluster adds what is wrong in the view of one node, and reports whether it is sound.
func judgeCluster(info map[string]string, r *result) bool {
	assigned, _ := numberOf(info["cluster_slots_assigned"])
	failing, _ := numberOf(info["cluster_slots_fail"])
	doubtful, _ := numberOf(info["cluster_slots_pfail"])
	const advice = "Bring the lost nodes back, or assign the slots to others: redis-cli --cluster fix."
	switch {
	case assigned < clusterSlots:
		r.critical("a-broken-cluster", advice, "%s of %s %s no server: the sessions there cannot be used (the Cluster's state is %s)",
			countOf(clusterSlots-assigned, "slot"), grouped(clusterSlots), verb(clusterSlots-assigned, "has", "have"), info["cluster_state"])
	case failing > 0:
		r.critical("a-broken-cluster", advice, "%s %s on servers that are down (the Cluster's state is %s)", countOf(failing, "slot"), verb(failing, "is", "are"), info["cluster_state"])
	case info["cluster_state"] != "ok":
		r.critical("a-broken-cluster", advice, "the Cluster's state is %s: it refuses all commands", info["cluster_state"])
	case doubtful > 0:
		r.warning("a-broken-cluster", advice, "%s %s on servers that do not answer this one", countOf(doubtful, "slot"), verb(doubtful, "is", "are"))
	default:
		return true
	}
	return false
}

// judgeMembers adds what the list of nodes says, and reports whether that is nothing.
func judgeMembers(members []member, fullCoverage string, r *result) bool {
	before := len(r.findings)
	primaries := 0
	var alone []string
	for _, m := range members {
		switch {
		case m.is("fail"):
			r.warning("a-lost-node", "Bring it back, or forget it: redis-cli --cluster del-node.", "the node %s is down", m.addr)
		case m.is("fail?"):
			r.warning("a-lost-node", "Look at it, and at the network to it.", "the node %s does not answer", m.addr)
		case m.is("master") && m.slots:
			primaries++
			if !slices.ContainsFunc(members, func(other member) bool { return other.primary == m.id && !other.is("fail") }) {
				alone = append(alone, m.addr)
			}
		}
	}
	if len(alone) > 0 {
		effect := "when one is lost, so are its sessions"
		if fullCoverage == "yes" {
			effect += ", and the whole Cluster stops (cluster-require-full-coverage yes)"
		}
		r.warning("no-replica", "Add replicas: redis-cli --cluster add-node --cluster-slave.", "primaries without a replica, %s: %s", strings.Join(alone, " "), effect)
	}
	if primaries < 3 {
		r.warning("few-primaries", "Run three, on machines that do not fail together.",
			"%s: a failover needs the votes of a majority, and there is no majority when one of them is lost", countOf(primaries, "primary server"))
	}
	return len(r.findings) == before
}
