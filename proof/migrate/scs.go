package migrate

import (
	"github.com/alexedwards/scs/v2"
	"github.com/labstack/echo/v4"
)

// importSCS reads what scs has stored.
func importSCS() func(stored []byte, v any) error {
	importOld := func(stored []byte, v any) error {
		_, values, err := scs.GobCodec{}.Decode(stored)
		if err != nil {
			return err
		}
		user := v.(*User)
		user.Name, _ = values["name"].(string)
		user.Count, _ = values["count"].(int)
		return nil
	}
	return importOld
}

// scsKey finds the old session of a request in the cookie "session".
func scsKey() func(c echo.Context) string {
	oldKey := func(c echo.Context) string {
		cookie, err := c.Cookie("session")
		if err != nil || len(cookie.Value) != 43 {
			return ""
		}
		return "scs:session:" + cookie.Value
	}
	return oldKey
}
