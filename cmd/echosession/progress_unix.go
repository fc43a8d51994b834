//go:build unix && !solaris && !aix

package main

import (
	"io"
	"os"
	"syscall"
	"unsafe"
)

// terminalWidth returns what tells how many columns the terminal behind w has, or nil where w
// is no terminal.
func terminalWidth(w io.Writer) func() int {
	file, ok := w.(*os.File)
	if !ok {
		return nil
	}
	width := func() int {
		var size struct{ rows, columns, x, y uint16 }
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
		switch {
		case errno != 0:
			return 0
		case size.columns == 0: // it does not know, as on a serial line
			return 80
		}
		return int(size.columns)
	}
	if width() == 0 {
		return nil
	}
	return width
}
