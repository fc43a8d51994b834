package adaptertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

func (s *store) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	return s.Store.(echosession.Watcher).Watch(ctx, tell)
}

func (s suite[C, M]) testStreams(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(site *site, sess *echosession.Session[User]) error
		want error
	}{
		{"a logout ends it", func(_ *site, sess *echosession.Session[User]) error {
			return sess.Destroy(t.Context())
		}, echosession.ErrSessionGone},
		{"a login ends it", func(_ *site, sess *echosession.Session[User]) error {
			_, err := sess.Renew(t.Context(), nil)
			return err
		}, echosession.ErrRenewed},
		{"the end of the program ends it", func(site *site, _ *echosession.Session[User]) error {
			return site.users.Close()
		}, echosession.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := newSite(t)
			t.Cleanup(func() { site.users.Close() })
			lines := s.stream(t, site, 10*time.Second)
			sess, err := site.users.Open(t.Context(), site.tokens["ada"])
			if err == nil {
				err = tt.end(site, sess)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := lines.ReadString('\n'); got != fmt.Sprintln(tt.want) {
				t.Errorf("it ends with %q, not with %v", got, tt.want)
			}
		})
	}
	t.Run("nothing but its own end ends it", func(t *testing.T) {
		site := newSite(t)
		t.Cleanup(func() { site.users.Close() })
		lines := s.stream(t, site, 300*time.Millisecond)
		for _, do := range []func(sess *echosession.Session[User]) error{
			func(sess *echosession.Session[User]) error { return sess.Touch(t.Context()) },
			func(sess *echosession.Session[User]) error {
				return sess.Update(t.Context(), func(u *User) error { u.Cart = append(u.Cart, "pear"); return nil })
			},
			func(sess *echosession.Session[User]) error { _, err := sess.Rotate(t.Context()); return err },
		} {
			sess, err := site.users.Open(t.Context(), site.tokens["ada"])
			if err == nil {
				err = do(sess)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		bob, err := site.users.Open(t.Context(), site.tokens["bob"])
		if err == nil {
			err = bob.Destroy(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := lines.ReadString('\n'); got != "still open\n" {
			t.Errorf("it ends with %q", got)
		}
	})
}

// stream opens a stream of ada's, whose next line tells why it ended: when its session ends,
// or else when patience is over.
func (s suite[C, M]) stream(t *testing.T, site *site, patience time.Duration) *bufio.Reader {
	t.Helper()
	h := s.serveUsers(site, func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		ctx, stop := sess.Watch(r.Context())
		defer stop()
		_, err := io.WriteString(w, "open\n")
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			_, err = fmt.Fprintln(w, context.Cause(ctx))
		case <-time.After(patience):
			_, err = io.WriteString(w, "still open\n")
		}
		return err
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+site.serve(h)+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+site.tokens["ada"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewReader(res.Body)
	if got, err := lines.ReadString('\n'); got != "open\n" {
		t.Fatalf("the stream begins with %q: %v", got, err)
	}
	return lines
}
