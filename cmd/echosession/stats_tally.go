package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A tally is what "echosession stats" counts. Its memory is bounded, whatever the number of
// sessions.
type tally struct {
	Partial  bool    `json:"partial"`
	Seconds  float64 `json:"seconds"`
	Sessions int     `json:"sessions"`

	// Share is which share of the sessions was to be read. Read is how many were. All below
	// is of these, but Subjects where each session is in the index of its subject.
	Share float64 `json:"share"`
	Read  int     `json:"read"`

	WithSubject    int `json:"with_subject"`
	WithoutSubject int `json:"without_subject"`
	SubjectSealed  int `json:"subject_encrypted"`
	Guests         int `json:"guests"`
	Remembered     int `json:"remembered"`
	Sealed         int `json:"encrypted"`
	OtherCodec     int `json:"other_codec"`
	Unreadable     int `json:"unreadable"`
	EndInAnHour    int `json:"end_in_an_hour"`
	EndInADay      int `json:"end_in_a_day"`

	Idle        *distribution `json:"idle"`
	IdleUnknown int           `json:"idle_unknown"`
	Age         *distribution `json:"age"`
	Size        *distribution `json:"size"`

	Subjects subjectTally `json:"subjects"`

	subjects map[subjectHash]subjectCount
	// thinned is how often half of the subjects were given up for want of memory.
	thinned int
}

type subjectTally struct {
	// Count is how many subjects have sessions.
	Count int `json:"count"`

	// Sample says that the numbers here are those of the sessions that were read.
	Sample bool `json:"sample"`

	PerSubject *distribution `json:"per_subject"`
	Top        []topSubject  `json:"top"`
}

type topSubject struct {
	// Subject is "" where the session is sealed, or has ended since it was counted.
	Subject  string `json:"subject"`
	Hash     string `json:"hash"`
	Sessions int    `json:"sessions"`

	example sessionKey
}

// A subjectCount is how many sessions a subject has, and one of them.
type subjectCount struct {
	sessions int32
	indexed  bool
	example  [16]byte
}

// mostSubjects bounds the memory for subjects to about 60 MB.
const mostSubjects = 1 << 19

func newTally() *tally {
	return &tally{
		Idle: newDistribution(milliseconds), Age: newDistribution(milliseconds), Size: newDistribution(byteCount),
		Subjects: subjectTally{PerSubject: newDistribution(plainCount), Top: []topSubject{}},
		Share:    1, subjects: make(map[subjectHash]subjectCount),
	}
}

func (t *tally) add(s step) {
	t.Share = s.share
	t.Sessions += len(s.keys) - s.none
	if s.share < 1 { // the names of the keys tell too, but for those that hold no session any more
		for _, k := range s.keys {
			if k.indexed {
				t.addSubject(k.subject, k)
			}
		}
	}
	now := time.Now()
	for _, v := range s.visits {
		t.addVisit(v, now)
	}
}

func (t *tally) addVisit(v visit, now time.Time) {
	t.Read++
	if v.key.indexed && t.Share >= 1 {
		t.addSubject(v.key.subject, v.key)
	}
	if v.bad {
		t.Unreadable++
		return
	}
	count := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	rec := &v.rec
	count(&t.SubjectSealed, v.hidden && !v.key.indexed)
	count(&t.WithSubject, rec.subject != "" || v.key.indexed)
	count(&t.WithoutSubject, rec.subject == "" && !v.key.indexed && !v.hidden)
	count(&t.Guests, rec.authenticatedAt.IsZero())
	count(&t.Remembered, rec.remembered)
	count(&t.Sealed, rec.sealed)
	count(&t.OtherCodec, rec.otherCodec)
	left := rec.expiresAt.Sub(now)
	count(&t.EndInAnHour, left <= time.Hour)
	count(&t.EndInADay, left <= day)
	if rec.lastUsed.IsZero() {
		t.IdleUnknown++
	} else {
		t.Idle.add(now.Sub(rec.lastUsed).Milliseconds())
	}
	t.Age.add(now.Sub(rec.createdAt).Milliseconds())
	t.Size.add(int64(rec.size))
	if rec.subject != "" && !v.key.indexed {
		t.Subjects.Sample = t.Subjects.Sample || t.Share < 1
		t.addSubject(hashOf(rec.subject), v.key)
	}
}

// addSubject counts a session of a subject. When there are too many subjects, half of them
// are given up: a hash is as good as a random number.
func (t *tally) addSubject(hash subjectHash, example sessionKey) {
	if !t.keeps(hash) {
		return
	}
	c := t.subjects[hash]
	t.subjects[hash] = subjectCount{sessions: c.sessions + 1, indexed: example.indexed, example: example.id}
	if len(t.subjects) <= mostSubjects {
		return
	}
	t.thinned++
	for other := range t.subjects {
		if !t.keeps(other) {
			delete(t.subjects, other)
		}
	}
}

func (t *tally) keeps(hash subjectHash) bool {
	// The sample is chosen by the other end.
	return uint32(hash[15])|uint32(hash[14])<<8|uint32(hash[13])<<16 >= 1<<24-1<<24>>t.thinned
}

// finish computes what can be told at the end only.
func (t *tally) finish(top int) {
	s := &t.Subjects
	s.Sample = s.Sample || t.thinned > 0
	s.Count = len(t.subjects)
	list := make([]topSubject, 0, top+1)
	for hash, c := range t.subjects {
		s.PerSubject.add(int64(c.sessions))
		if len(list) < top || top > 0 && int(c.sessions) > list[len(list)-1].Sessions {
			list = append(list, topSubject{
				Hash: hash.String(), Sessions: int(c.sessions),
				example: sessionKey{id: c.example, subject: hash, indexed: c.indexed},
			})
			slices.SortFunc(list, func(a, b topSubject) int {
				return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Hash, b.Hash))
			})
			list = list[:min(len(list), top)]
		}
	}
	s.Top = list
}

// name reads the names of the subjects at the top.
func (t *tally) name(ctx context.Context, w *walker) {
	keys := make([]sessionKey, len(t.Subjects.Top))
	for i, top := range t.Subjects.Top {
		keys[i] = top.example
	}
	visits, _ := w.read(ctx, keys) // the hashes are there in any case
	for _, v := range visits {
		for i := range t.Subjects.Top {
			if top := &t.Subjects.Top[i]; top.example == v.key {
				top.Subject = v.rec.subject
			}
		}
	}
}

// print writes the tally for people, in one piece.
func (t *tally) print(w io.Writer) error {
	var out bytes.Buffer
	if t.Partial {
		fmt.Fprintf(&out, "PARTIAL: interrupted after %.1f s. What follows is what was counted until then.\n\n", t.Seconds)
	}
	fmt.Fprintf(&out, "%s in %.1f s\n", countOf(t.Sessions, "session"), t.Seconds)
	if t.Share < 1 {
		fmt.Fprintf(&out, "%s of them were read, a sample. The figures below are of these.\n", grouped(t.Read))
	}
	row := func(name string, n int) {
		line := fmt.Sprintf("  %-28s %11s %6s", name, grouped(n), percent(n, t.Read))
		fmt.Fprintln(&out, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(&out)
	row("with a subject", t.WithSubject)
	row("without", t.WithoutSubject)
	if t.SubjectSealed > 0 {
		row("subject encrypted", t.SubjectSealed)
	}
	row("guests (nobody logged in)", t.Guests)
	row("remembered", t.Remembered)
	row("encrypted", t.Sealed)
	row("data by another Codec", t.OtherCodec)
	row("cannot be read", t.Unreadable)
	row("end within an hour if unused", t.EndInAnHour)
	row("end within a day if unused", t.EndInADay)
	t.Idle.print(&out, "not used for")
	if t.IdleUnknown > 0 && t.Idle.n > 0 {
		fmt.Fprintf(&out, "  not known of %s: they end by their deadline, or -max-age is not Config.MaxAge\n", grouped(t.IdleUnknown))
	}
	t.Age.print(&out, "age")
	t.Size.print(&out, "size of a record")
	t.printSubjects(&out)
	_, err := w.Write(out.Bytes())
	return err
}

func (t *tally) printSubjects(out *bytes.Buffer) {
	s := &t.Subjects
	if s.Count == 0 {
		return
	}
	s.PerSubject.print(out, "subjects by how many sessions they have")
	if s.Sample {
		fmt.Fprintln(out, "  of a sample: there are more subjects, and those of the list may have more sessions")
	}
	if len(s.Top) > 0 {
		fmt.Fprintln(out, "\nthe most sessions have")
	}
	for _, top := range s.Top {
		name := printable(top.Subject)
		if top.Subject == "" {
			name = "{" + top.Hash + "} (encrypted, or ended meanwhile)"
		}
		fmt.Fprintf(out, "  %11s  %s\n", grouped(top.Sessions), name)
	}
}
