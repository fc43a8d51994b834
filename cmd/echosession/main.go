// Command echosession looks after the sessions that programs keep in Redis. It needs no
// more than Redis: it knows the records, and not the programs' types.
//
//	go run github.com/echosession/echosession/cmd/echosession@latest doctor redis://localhost:6379
//
// "echosession help" lists what it can do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/redis/go-redis/v9"
)

// The exit codes: those of monitoring plugins.
const (
	exitOK       = 0
	exitWarning  = 1
	exitCritical = 2
	exitUnknown  = 3 // it could not find out: wrong usage, no connection
)

// A command is one word behind "echosession".
type command struct {
	name    string
	summary string // one line for the list of commands
	usage   string // what follows the name in the synopsis
	help    string // text below the synopsis, with examples
	// define declares the flags, and returns what runs when they are read.
	define func(fs *flag.FlagSet) func(ctx context.Context, inv *invocation) (exit int, err error)
}

// An invocation is what a command is run with. Tests make their own.
type invocation struct {
	args   []string // what is left of the command line behind the flags
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
}

// errUsage is an error of the command line. Its text says what to write instead.
type errUsage string

func (e errUsage) Error() string { return string(e) }

var commands = []command{
	doctorCommand,
	listCommand,
	showCommand,
	revokeCommand,
	statsCommand,
	watchCommand,
	tokenCommand,
	keygenCommand,
}

// others returns the arguments that name no Redis.
func (inv *invocation) others() (args []string) {
	for _, arg := range inv.args {
		if !isURL(arg) {
			args = append(args, arg)
		}
	}
	return args
}

// noArguments is for commands that take a Redis alone. The error does not repeat what may be
// a secret.
func (inv *invocation) noArguments() error {
	if len(inv.others()) > 0 {
		return errUsage("the only argument is a Redis, as in redis://localhost:6379")
	}
	return nil
}

// oneName is for commands that take one session, by its ID or its log ID.
func (inv *invocation) oneName() (string, error) {
	args := inv.others()
	if len(args) != 1 {
		return "", errUsage("name one session, by its ID or its log ID")
	}
	return checkName(args[0])
}

func main() {
	redis.SetLogger(silence{})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not heed the first
	code := run(ctx, os.Args[1:], &invocation{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv})
	stop()
	os.Exit(code)
}

// run runs the command that args name, and returns the exit code.
func run(ctx context.Context, args []string, inv *invocation) int {
	if len(args) == 0 {
		overview(inv.stderr)
		return exitUnknown
	}
	name, args := args[0], args[1:]
	if name == "help" || name == "-h" || name == "-help" || name == "--help" {
		if len(args) == 0 {
			overview(inv.stdout)
			return exitOK
		}
		name, args = args[0], []string{"-h"}
	}
	for _, c := range commands {
		if c.name == name {
			return c.run(ctx, args, inv)
		}
	}
	if !regexp.MustCompile(`^[a-z-]{1,20}$`).MatchString(name) {
		name = "of this name" // it may be a URL with a password, or a token
	}
	fmt.Fprintf(inv.stderr, "echosession: there is no command %s; \"echosession help\" lists them\n", name)
	return exitUnknown
}

func (c *command) run(ctx context.Context, args []string, inv *invocation) int {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	act := c.define(fs)
	inv.args = nil
	if err := c.parse(fs, args, inv); errors.Is(err, flag.ErrHelp) {
		c.explain(inv.stdout, fs)
		return exitOK
	} else if err != nil {
		fmt.Fprintf(inv.stderr, "echosession %s: %v; \"echosession help %s\" lists the flags\n", c.name, err, c.name)
		return exitUnknown
	}
	out := &output{w: inv.stdout}
	inv.stdout = out
	exit, err := exitUnknown, inv.checkPasswords()
	if err == nil {
		exit, err = act(ctx, inv)
	}
	if err == nil && out.err != nil && !errors.Is(out.err, syscall.EPIPE) {
		exit, err = exitUnknown, fmt.Errorf("the output cannot be written: %w", out.err)
	}
	if err == nil {
		return exit
	}
	if ctx.Err() != nil {
		fmt.Fprintf(inv.stderr, "echosession %s: interrupted\n", c.name)
		return exitUnknown
	}
	fmt.Fprintf(inv.stderr, "echosession %s: %s\n", c.name, messageOf(err))
	if _, wrong := errors.AsType[errUsage](err); wrong {
		fmt.Fprintf(inv.stderr, "\"echosession help %s\" says more\n", c.name)
	}
	return max(exit, exitUnknown)
}

// messageOf is the text of an error for a terminal. A server can send any bytes. What stands
// in the place of a file that there is not may be a password.
func messageOf(err error) string {
	text := err.Error()
	if of, ok := errors.AsType[*fs.PathError](err); ok && !looksLikePath(of.Path) {
		text = strings.ReplaceAll(text, of.Error(), of.Err.Error())
	}
	return escape(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

func looksLikePath(name string) bool {
	return filepath.IsAbs(name) || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../")
}

// An output notes that what a command writes gets lost.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// parse reads the flags, which may stand behind other arguments too, and puts these into the
// invocation. One log ID in 64 begins with a dash.
func (c *command) parse(fs *flag.FlagSet, args []string, inv *invocation) error {
	for len(args) > 0 {
		err := fs.Parse(args)
		read := len(args) - fs.NArg()
		if err != nil {
			if read == 0 { // the flag has three dashes
				read = 1
			}
			name := args[read-1]
			if errors.Is(err, flag.ErrHelp) || !strings.Contains(c.usage, "<id>") || !isLogID(name) || fs.Lookup(strings.TrimLeft(name, "-")) != nil {
				return err
			}
			inv.args, args = append(inv.args, name), args[read:]
			continue
		}
		if read > 0 && args[read-1] == "--" { // what follows are arguments, whatever they look like
			inv.args = append(inv.args, args[read:]...)
			return nil
		}
		if args = fs.Args(); len(args) > 0 {
			inv.args, args = append(inv.args, args[0]), args[1:]
		}
	}
	return nil
}

func overview(w io.Writer) {
	fmt.Fprint(w, "echosession looks after the sessions that programs keep in Redis.\n\nUsage:\n\n\techosession <command> [flags] [arguments]\n\nThe commands:\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "\t%-8s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\n\"echosession help <command>\" has the flags and examples of each.\n\n", connectionHelp)
	fmt.Fprint(w, "\nExit codes: 0 all is well, 1 a warning, 2 critical, 3 it could not be found out: wrong\nusage, no connection. The help of a command says what they mean there.\n")
}

// explain writes the help of a command. The flags of the connection are the same for every
// command, so they come last.
func (c *command) explain(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "echosession %s: %s\n\nUsage:\n\n\techosession %s %s\n\n%s", c.name, c.summary, c.name, c.usage, c.help)
	var connection target
	where := flag.NewFlagSet("", flag.ContinueOnError)
	connection.define(where)
	own, shared := flag.NewFlagSet("", flag.ContinueOnError), flag.NewFlagSet("", flag.ContinueOnError)
	fs.VisitAll(func(f *flag.Flag) {
		part := own
		if where.Lookup(f.Name) != nil {
			part = shared
		}
		part.Var(f.Value, f.Name, f.Usage)
	})
	for _, part := range []struct {
		title string
		flags *flag.FlagSet
	}{{"Flags:", own}, {connectionHelp + "\nFlags of the connection:", shared}} {
		n := 0
		part.flags.VisitAll(func(*flag.Flag) { n++ })
		if n > 0 {
			fmt.Fprintf(w, "\n%s\n\n", part.title)
			part.flags.SetOutput(w)
			part.flags.PrintDefaults()
		}
	}
}
