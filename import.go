package echosession

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// An importer makes sessions of what another library has stored under the key of a
// session. It is [Config.Import] made ready.
type importer struct {
	decode  func(stored []byte, v any) error
	t       reflect.Type // of the sessions' data
	maxSize int          // of what is stored
}

// droppedMembers are what the Node predecessor writes beside the data: the token's
// claims, and the token itself. Nobody who reads the store shall find a token in it.
var droppedMembers = []string{"claims", "jwt"}

// imports reports whether what is stored for l is to be imported. A session that was
// found without its token is not: who holds no token shall not cause a write.
func (e *engine) imports(l *live, stored []byte) bool {
	return e.importer != nil && l.tok != nil && len(stored) > 0 && revisionOf(stored) == nil
}

// importStored puts a record in the place of what another library has stored. ttl is the
// lifetime of a session that is used now. If the read has not restarted the lifetime, the
// record keeps what is left. nil means that the caller reads again what is there now: it
// may be another request's record.
func (e *engine) importStored(ctx context.Context, l *live, stored []byte, touched bool, ttl time.Duration) error {
	record, err := e.imported(l, stored)
	if err != nil {
		// A connection that is out of step hands out replies to other commands: only
		// what is read twice is what is stored.
		again, loadErr := e.load(ctx, l.ref, 0)
		switch {
		case wasRotated(loadErr), loadErr == nil && !bytes.Equal(again, stored):
			return nil
		case loadErr != nil:
			return e.failed(ctx, "import", loadErr)
		}
		return e.unreadable(ctx, "import", l.ref.ID, err)
	}
	if !touched {
		left, err := e.checkRef(ctx, l.ref)
		switch {
		case wasRotated(err):
			return nil
		case err != nil:
			return e.failed(ctx, "import", err)
		}
		if left >= time.Millisecond { // or the other library gave it no end
			ttl = min(ttl, left)
		}
	}
	err = e.stale.importing(l.ref.ID).run(nil, func() error {
		return e.write(ctx, func(ctx context.Context) error {
			// It compares with all that was stored: what is put there is made of nothing
			// else, and where a logout came first there is nothing to compare with.
			return e.store.Replace(ctx, l.ref, stored, record, ttl)
		})
	})
	switch {
	case err == nil:
		e.happened(ctx, EventImported, "", l.header.subject, l.ref.ID)
	case !errors.Is(err, ErrConflict):
		return e.failed(ctx, "import", err)
	}
	return nil
}

// wasRotated says that another request has imported a session meanwhile, and rotated it.
func wasRotated(err error) bool {
	_, ok := errors.AsType[*RotatedError](err)
	return ok
}

// imported makes a record of what another library has stored.
func (e *engine) imported(l *live, stored []byte) ([]byte, error) {
	v, err := e.importer.run(stored)
	if err != nil {
		return nil, err
	}
	h := recordHeader{id: l.ref.ID, idle: l.tok.Idle, subject: l.tok.Subject}
	h.deadline, _ = l.tok.ExpiresAt()
	now := e.cfg.Now()
	h.createdAt = l.tok.IssuedAt()
	if h.createdAt.Before(time.UnixMilli(0)) || h.createdAt.After(now) {
		h.createdAt = now
	}
	h.createdAt = h.createdAt.Truncate(time.Millisecond).UTC()
	h.authenticatedAt = h.createdAt
	record, err := e.serializer.encode(h, v, nil)
	if err != nil {
		return nil, &corruptError{whyImport, "what Import made of it cannot be stored", err}
	}
	return record, nil
}

// run returns what Import makes of stored bytes: a *T.
func (i *importer) run(stored []byte) (v any, err error) {
	if len(stored) > i.maxSize {
		return nil, corrupt(whyTooLarge, fmt.Sprintf("it has %d bytes, and %d are allowed (MaxRecordSize)", len(stored), i.maxSize))
	}
	defer func() {
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("panic: %v", r)
			}
			v, err = nil, &corruptError{whyImport, "Import panicked", cause}
		}
	}()
	v = reflect.New(i.t).Interface()
	if err := i.decode(withoutMembers(stored, droppedMembers), v); err != nil {
		return nil, &corruptError{whyImport, "Import refused it", err}
	}
	return v, nil
}

// withoutMembers returns a copy of stored bytes. If they are a JSON object with one of
// the named members, the copy is an object of the others.
func withoutMembers(stored []byte, names []string) []byte {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(stored, &members); err != nil {
		return bytes.Clone(stored)
	}
	all := len(members)
	for _, name := range names {
		delete(members, name)
	}
	if len(members) == all {
		return bytes.Clone(stored)
	}
	rest, err := json.Marshal(members)
	if err != nil {
		panic("echosession: members of a JSON object do not encode: " + err.Error())
	}
	return rest
}
