//go:build !echosession

package main

func echosessionContenders() []contender { return nil }
