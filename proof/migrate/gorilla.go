package migrate

import (
	"bytes"
	"encoding/gob"

	"github.com/boj/redistore"
	"github.com/gorilla/securecookie"
	"github.com/labstack/echo/v4"
)

// importRedistore reads what redistore has stored in gob: the types that the service has
// registered with gob.Register are needed here as well.
func importRedistore() func(stored []byte, v any) error {
	importOld := func(stored []byte, v any) error {
		var values map[any]any
		if err := gob.NewDecoder(bytes.NewReader(stored)).Decode(&values); err != nil {
			return err
		}
		user := v.(*User)
		user.Name, _ = values["name"].(string)
		user.Count, _ = values["count"].(int)
		return nil
	}
	return importOld
}

// redistoreKey finds the old session of a request in the cookie "session-name", which the
// Codecs of the old store check.
func redistoreKey(store *redistore.RediStore) func(c echo.Context) string {
	oldKey := func(c echo.Context) string {
		var id string
		cookie, err := c.Cookie("session-name")
		if err != nil || securecookie.DecodeMulti("session-name", cookie.Value, &id, store.Codecs...) != nil {
			return ""
		}
		return "session_" + id
	}
	return oldKey
}
