package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// index returns the index of a session's key, which ends with a colon and the ID.
func (k foundKey) index() string { return strings.TrimSuffix(k.name, ":"+k.id) }

// lookUp looks for sessions in the indexes of their subjects. All are of one server.
func (x *examination) lookUp(ctx context.Context, s *survey, readings []*reading) error {
	if len(readings) == 0 || s.denied["+zscore"] != nil {
		return nil
	}
	client := readings[0].key.node.client
	missing := make([]*reading, 0)
	scores := make([]*redis.FloatCmd, len(readings))
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, r := range readings {
			scores[i] = pipe.ZScore(ctx, r.key.index(), r.key.id)
		}
		return nil
	})
	if err != nil && !isReply(err) {
		return err
	}
	for i, r := range readings {
		if s.refuse("+zscore", scores[i].Err()) {
			return nil
		}
		if scores[i].Err() == redis.Nil {
			missing = append(missing, r)
		}
	}
	// A session that has ended since its record was read is missing for that reason. Only
	// one that still is a session, and still is missing, counts.
	for _, r := range missing {
		value, err := client.GetRange(ctx, r.key.name, 0, 0).Bytes()
		if err != nil && !isReply(err) {
			return err
		}
		if len(value) == 0 || value[0] == notARecord {
			continue
		}
		if err := client.ZScore(ctx, r.key.index(), r.key.id).Err(); err == redis.Nil {
			r.unindexed = true
		}
	}
	return nil
}

// readIndexes looks at the newest entries of a sample of indexes.
func (x *examination) readIndexes(ctx context.Context, s *survey, keys []foundKey) error {
	for _, batch := range byNode(keys, readBatch) {
		client := batch[0].node.client
		now, err := client.Time(ctx).Result()
		if s.refuse("+time", err) {
			now = x.now()
		} else if err != nil {
			return err
		}
		entries := make([]*redis.ZSliceCmd, len(batch))
		_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, k := range batch {
				entries[i] = pipe.ZRangeWithScores(ctx, k.name, -entriesRead, -1)
			}
			return nil
		})
		if err != nil && !isReply(err) {
			return err
		}
		for i, k := range batch {
			if s.refuse("+zrange", entries[i].Err()) {
				return nil
			}
			one := indexed{key: k}
			if err := one.read(ctx, s, client, entries[i].Val(), now); err != nil {
				return err
			}
			s.indexes = append(s.indexes, one)
		}
	}
	s.judgeEntries()
	return nil
}

// read asks for the sessions of an index's entries. The score of an entry is when it was
// made, in microseconds since 1970.
func (one *indexed) read(ctx context.Context, s *survey, client *redis.Client, entries []redis.Z, now time.Time) error {
	var exist []*redis.IntCmd
	var ages []time.Duration
	if s.denied["+exists"] != nil {
		return nil
	}
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, e := range entries {
			id, _ := e.Member.(string)
			if !isID(id) {
				continue // of a renewal that is under way, or was broken off
			}
			exist = append(exist, pipe.Exists(ctx, one.key.name+":"+id))
			ages = append(ages, now.Sub(time.UnixMicro(int64(e.Score))))
		}
		return nil
	})
	if err != nil && !isReply(err) {
		return err
	}
	for i, reply := range exist {
		if s.refuse("+exists", reply.Err()) {
			return nil
		}
		one.ages = append(one.ages, entryWithin{ages[i], reply.Val() == 1})
	}
	return nil
}

// judgeEntries tells leftovers from losses. The library removes an entry together with its
// session. Only when a session expires does the entry stay, until the next login, list or
// count of its subject. So an entry without a session is a loss if the session could not
// have expired yet: if it is younger than the shortest life of any session that was read.
func (s *survey) judgeEntries() {
	shortest := s.shortestLife()
	for i := range s.indexes {
		one := &s.indexes[i]
		for _, e := range one.ages {
			switch {
			case e.age < shortest:
				one.young++
				if !e.session {
					one.lost++
				}
			case !e.session:
				one.leftover++
			}
		}
	}
}

// shortestLife returns how long a session lives at least that is not used, as far as the
// sample shows: from its start until it would end. Without sessions it returns 0.
func (s *survey) shortestLife() (shortest time.Duration) {
	now := time.Now()
	for _, r := range s.readings {
		if r.moved || r.damage != "" || r.rec.createdAt.IsZero() || r.ttl <= 0 {
			continue
		}
		if life := now.Sub(r.rec.createdAt) + r.ttl; shortest == 0 || life < shortest {
			shortest = life
		}
	}
	return shortest
}

func checkIndex(ctx context.Context, x *examination, r *result) {
	s := x.look(ctx)
	if s.unfit(r) {
		return
	}
	if s.count[indexKey]+s.count[indexedKey] == 0 {
		r.ok("no indexes: the programs do not use SubjectIndex, or nobody is logged in")
		return
	}
	if s.missing(r, "+getrange", "+pttl", "+zscore", "+zrange", "+exists") {
		return
	}
	before := len(r.findings)
	young, lost, leftover := 0, 0, 0
	for _, one := range s.indexes {
		young, lost, leftover = young+one.young, lost+one.lost, leftover+one.leftover
	}
	if lost > 0 {
		r.warning("lost-sessions", "Look for an eviction policy, for a program that deletes keys, and for sessions with a short lifetime of their own, which may just have expired.",
			"%s of the %s young entries of indexes that were looked at have no session, which could not have expired yet: it was evicted or deleted, and its user logged out",
			grouped(lost), grouped(young))
	}
	s.unindexedFindings(r)
	s.mixedFindings(r)
	if len(r.findings) == before {
		r.ok("%s and %s agree; sessions that have expired left %s entries, which is normal",
			countOf(len(s.indexes), "index"), countOf(s.sampled(indexedKey), "session"), grouped(leftover))
	}
}

// unindexedFindings are sessions that the library does not find any more.
func (s *survey) unindexedFindings(r *result) {
	var examples []string
	n := 0
	for _, one := range s.readings {
		if one.unindexed {
			n++
			examples = example(examples, one.key.name)
		}
	}
	if n > 0 {
		r.warning("unindexed-sessions", "Look for an eviction policy, and for a program that deletes keys. The library ends such a session at its next use.",
			"the index of their subject lacks %s of %s that were read: their users are logged out (%s)",
			grouped(n), countOf(s.sampled(indexedKey), "session"), strings.Join(examples, " "))
	}
}

// mixedFindings tells of sessions with a subject that have no index, beside those that have
// one: programs with the same keyspace differ in SubjectIndex.
func (s *survey) mixedFindings(r *result) {
	without := 0
	for _, one := range s.readings {
		if one.key.kind == plainKey && one.rec.subject != "" {
			without++
		}
	}
	if with := s.sampled(indexedKey); with > 0 && without > 0 {
		r.warning("with-and-without-index", "Set SubjectIndex alike in all programs with this keyspace. After it was changed, sessions of before are not found, and expire.",
			"%s of those read %s a subject and no index, and %s %s one: a program with SubjectIndex does not find the former, one without does not find the latter",
			countOf(without, "session"), verb(without, "has", "have"), grouped(with), verb(with, "has", "have"))
	}
}

// sampled counts the sessions that were read.
func (s *survey) sampled(kinds ...keyKind) (n int) {
	for _, r := range s.readings {
		if !r.moved && slices.Contains(kinds, r.key.kind) {
			n++
		}
	}
	return n
}

// example keeps the first few of many.
func example(list []string, one string) []string {
	if len(list) < 3 {
		list = append(list, one)
	}
	return list
}
