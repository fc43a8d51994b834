package echov5_test

import (
	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

func setSkipper(cfg *echosession.Config) { cfg.Skipper = func(echo.Context) bool { return false } }

func setErrorHandler(cfg *echosession.Config) {
	cfg.ErrorHandler = func(_ echo.Context, err error) error { return err }
}
