//go:build !linux

package main

import "os/exec"

// core has no meaning where processes cannot be pinned.
type core int

const (
	serverCore core = iota
	loadCore
)

func pinnable() bool { return false }

func startPinned(cmd *exec.Cmd, _ core) error { return cmd.Start() }

func pinSelf(core) error { return nil }
