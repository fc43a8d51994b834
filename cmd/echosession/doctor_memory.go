package main

import (
	"context"
	"strings"
	"time"
)

func checkEviction(_ context.Context, _ *examination, n *node, r *result) {
	if !n.needs(r, "maxmemory_policy") {
		return
	}
	policy := n.info["maxmemory_policy"]
	evicted, _ := n.number("evicted_keys")
	limit, _ := n.number("maxmemory")
	const advice = "Set maxmemory-policy noeviction, give this Redis the memory that its sessions need, and keep other data elsewhere."
	switch {
	case policy == "noeviction" && evicted > 0:
		r.ok("noeviction: nothing is thrown away now; %s %s, before the policy was set, %s", countOf(evicted, "key"), verb(evicted, "was", "were"), n.since())
	case policy == "noeviction":
		r.ok("noeviction: Redis throws no session away")
	case evicted > 0:
		r.critical("evicted-sessions", advice,
			"when Redis is full, it throws keys away, sessions among them (%s): users are logged out at random; %s %s thrown away %s", policy, countOf(evicted, "key"), verb(evicted, "was", "were"), n.since())
	case limit == 0:
		r.warning("an-evicting-policy", advice,
			"%s: as soon as somebody sets maxmemory, and it is reached, Redis throws sessions away", policy)
	default:
		r.warning("an-evicting-policy", advice,
			"%s: when its %s are full, Redis throws sessions away, and users are logged out at random; that has not happened %s", policy, sizeOf(limit), n.since())
	}
}

func checkMemory(_ context.Context, _ *examination, n *node, r *result) {
	if !n.needs(r, "used_memory") {
		return
	}
	used, _ := n.number("used_memory")
	limit, known := n.number("maxmemory")
	machine, _ := n.number("total_system_memory")
	if refusals, ok := numberIn(n.info["errorstat_OOM"], "count"); ok && refusals > 0 {
		r.warning("redis-is-full", "Raise maxmemory, or take out of this Redis what is not sessions.",
			"Redis was full and has refused %s %s", countOf(refusals, "command"), n.since())
	}
	switch {
	case limit > 0:
		withLimit(r, used, limit, n.info["maxmemory_policy"])
		if machine > 0 && limit > machine*9/10 {
			r.warning("maxmemory-over-the-machine", "Lower maxmemory: copies for a save, replicas and clients need memory too.",
				"maxmemory is %s, and the machine has %s: the system may end Redis before it is full", sizeOf(limit), sizeOf(machine))
		}
	case machine > 0:
		withoutLimit(r, used, machine)
	case !known:
		r.unknown("no-maxmemory", "Ask the provider of this Redis.", "%s in use; INFO does not say how much there may be", sizeOf(used))
	default:
		r.unknown("no-maxmemory", "Set maxmemory.", "%s in use; there is no maxmemory, and INFO does not say what the machine has", sizeOf(used))
	}
	fragmentation(n, r, used)
}

func withLimit(r *result, used, limit int64, policy string) {
	share := used * 100 / limit
	effect := "then it refuses writes: nobody can log in"
	if policy != "" && policy != "noeviction" {
		effect = "then it throws keys away (" + policy + ")"
	}
	const advice = "Raise maxmemory, shorten MaxAge, or take out of this Redis what is not sessions."
	switch {
	case share >= 95:
		r.critical("little-memory-left", advice, "%s of %s in use (%d %%): Redis is full, or soon will be; %s", sizeOf(used), sizeOf(limit), share, effect)
	case share >= 80:
		r.warning("little-memory-left", advice, "%s of %s in use (%d %%); %s are left until Redis is full, and %s", sizeOf(used), sizeOf(limit), share, sizeOf(limit-used), effect)
	default:
		r.ok("%s of %s in use (%d %%)", sizeOf(used), sizeOf(limit), share)
	}
}

func withoutLimit(r *result, used, machine int64) {
	share := used * 100 / machine
	const advice = "Set maxmemory to less than the machine has: a Redis that is full refuses writes, and one that the system has ended has lost its sessions."
	switch {
	case share >= 85:
		r.critical("no-maxmemory", advice, "%s in use, %d %% of the machine's %s, and there is no maxmemory: the system ends Redis when memory runs out", sizeOf(used), share, sizeOf(machine))
	case share >= 60:
		r.warning("no-maxmemory", advice, "%s in use, %d %% of the machine's %s, and there is no maxmemory", sizeOf(used), share, sizeOf(machine))
	default:
		r.ok("%s in use, %d %% of the machine's %s; there is no maxmemory", sizeOf(used), share, sizeOf(machine))
	}
}

// tellingMemory is the memory from which on the system's view of it differs for a reason.
const tellingMemory = 100 << 20

func fragmentation(n *node, r *result, used int64) {
	resident, ok := n.number("used_memory_rss")
	if !ok || used < tellingMemory {
		return
	}
	if resident < used*8/10 {
		r.warning("redis-is-swapped-out", "Give the machine more memory: a Redis in swap answers slowly.",
			"only %s of the %s of Redis are in memory: the rest is in swap", sizeOf(resident), sizeOf(used))
	}
	if resident > used*3/2 && resident-used > tellingMemory {
		r.warning("fragmented-memory", "Set activedefrag yes, or restart Redis when that loses nothing.",
			"Redis takes %s of the machine for %s of data", sizeOf(resident), sizeOf(used))
	}
}

func checkPersistence(_ context.Context, _ *examination, n *node, r *result) {
	if !n.needs(r, "aof_enabled") {
		return
	}
	failed := failedSave(n, r)
	aof := n.info["aof_enabled"] == "1"
	save, known := n.config["save"]
	saves, _ := n.number("rdb_saves")
	const advice = "Set appendonly yes. With replicas alone, a primary that restarts at once empties them."
	switch {
	case failed:
	case aof:
		fsync, asked := n.config["appendfsync"]
		if asked {
			fsync = ", appendfsync " + fsync
		}
		r.ok("each change is appended to a file (AOF%s)", fsync)
	case known && save != "", !known && saves > 0:
		last, _ := n.number("rdb_last_save_time")
		changes, _ := n.number("rdb_changes_since_last_save")
		r.ok("snapshots (RDB); the last one was %s ago, and a crash now loses what changed since, %s",
			lasting(time.Since(time.Unix(last, 0))), countOf(changes, "change"))
	case known:
		r.warning("no-persistence", advice, "nothing is written to disk, neither AOF nor RDB: a restart logs everybody out")
	default:
		r.unknown("no-persistence", "Grant +config|get, or look at the parameter save.",
			"there is no AOF, and whether there are snapshots (RDB) only CONFIG tells: %s", reply(n.configErr))
	}
}

// failedSave reports whether Redis cannot write to disk.
func failedSave(n *node, r *result) (failed bool) {
	if n.info["aof_last_write_status"] == "err" {
		failed = true
		r.critical("a-failed-save", "Look at the disk and at the log of Redis.",
			"the last write to the append-only file failed: Redis refuses writes, and nobody can log in")
	}
	if n.info["aof_last_bgrewrite_status"] == "err" {
		r.warning("a-failed-save", "Look at the disk and at the log of Redis.",
			"the append-only file could not be rewritten: it grows until it can be")
	}
	if n.info["rdb_last_bgsave_status"] != "err" {
		return failed
	}
	stop, known := n.config["stop-writes-on-bgsave-error"]
	effect := "Redis then refuses writes, unless stop-writes-on-bgsave-error is no"
	switch {
	case known && strings.EqualFold(stop, "yes"):
		effect = "with stop-writes-on-bgsave-error Redis refuses writes while that lasts, and nobody can log in"
	case known:
		effect = "Redis goes on (stop-writes-on-bgsave-error is no), and a restart loses what changed since the last good one"
	}
	r.critical("a-failed-save", "Look at the disk and at the log of Redis; BGSAVE tries it again.", "the last snapshot (RDB) failed: %s", effect)
	return true
}
