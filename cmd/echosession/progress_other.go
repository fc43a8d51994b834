//go:build !unix || solaris || aix

package main

import (
	"io"
	"os"
)

// terminalWidth returns what tells how many columns the terminal behind w has, or nil where w
// is no terminal. Here 80 stand for any width.
func terminalWidth(w io.Writer) func() int {
	file, ok := w.(*os.File)
	if !ok {
		return nil
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return func() int { return 80 }
}
