//go:build !echosession

package main

import (
	"context"
	"io"
)

func echosessionContenders() []contender { return nil }

func scaleEchosession(context.Context, io.Writer, *redisServer, plan, sizes) error { return nil }
