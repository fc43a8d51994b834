package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// core picks one of the cores that this process may use.
type core int

const (
	serverCore core = iota // the server under test, alone
	loadCore               // the load generator and Redis
)

// allowed is what this process may use before it is pinned itself.
var allowed = func() (cpus []int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}()

// pinnable says whether there is a core for each.
func pinnable() bool { return len(allowed) >= 2 }

func (c core) set() *unix.CPUSet {
	var set unix.CPUSet
	set.Set(allowed[c])
	return &set
}

// startPinned starts a process on one core: a child inherits the affinity of the
// thread that starts it.
func startPinned(cmd *exec.Cmd, c core) error {
	if !pinnable() {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, c.set()); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &before)
	return cmd.Start()
}

// pinSelf moves every thread of this process to one core.
func pinSelf(c core) error {
	if !pinnable() {
		return nil
	}
	runtime.GOMAXPROCS(1)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, c.set()); err != nil {
			return err
		}
	}
	return nil
}
