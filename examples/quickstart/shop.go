package main

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Customer is what a session holds.
type Customer struct {
	Name string   `json:"name"`
	Cart []string `json:"cart"`
}

// login begins a session. A real one checks a password first.
func login(c echo.Context) error {
	var form struct {
		Name string `json:"name"`
	}
	if err := c.Bind(&form); err != nil {
		return err
	}
	sess, err := echosession.Get[Customer](c)
	if err != nil {
		return err
	}
	token, err := sess.Create(c.Request().Context(), Customer{Name: form.Name, Cart: []string{}})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]string{"token": token})
}

func me(c echo.Context) error {
	sess, err := echosession.Get[Customer](c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, sess)
}

func addToCart(c echo.Context) error {
	sess, err := echosession.Get[Customer](c)
	if err != nil {
		return err
	}
	err = sess.Update(c.Request().Context(), func(customer *Customer) error {
		customer.Cart = append(customer.Cart, c.Param("sku"))
		return nil
	})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, sess)
}

func logout(c echo.Context) error {
	sess, err := echosession.Get[Customer](c)
	if err != nil {
		return err
	}
	if err := sess.Destroy(c.Request().Context()); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// usage is what to paste into a shell; its argument is the server's address.
const usage = `Listening. In another shell:

  TOKEN=$(curl -sS -H 'Content-Type: application/json' -d '{"name":"Ada"}' http://%[1]s/login | sed 's/.*"token":"//;s/".*//')
  curl -sS -H "Authorization: Bearer $TOKEN" http://%[1]s/me
  curl -sS -H "Authorization: Bearer $TOKEN" -X POST http://%[1]s/cart/apple
`
