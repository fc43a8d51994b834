package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// readFrame reads one frame of RESP2 or RESP3 and returns its bytes. Attributes
// are part of the frame that follows them.
func readFrame(br *bufio.Reader) ([]byte, error) {
	return appendFrame(nil, br)
}

func appendFrame(frame []byte, br *bufio.Reader) ([]byte, error) {
	line, err := readLine(br)
	if err != nil {
		return frame, err
	}
	frame = append(frame, line...)

	elements := 0
	switch kind := line[0]; kind {
	case '+', '-', ':', '_', ',', '#', '(':
		return frame, nil
	case '$', '!', '=':
		n, err := length(line)
		if err != nil || n < 0 {
			return frame, err
		}
		start := len(frame)
		frame = append(frame, make([]byte, n+2)...)
		_, err = io.ReadFull(br, frame[start:])
		return frame, err
	case '*', '~', '>', '%', '|':
		if elements, err = length(line); err != nil {
			return frame, err
		}
		switch kind {
		case '%':
			elements *= 2
		case '|':
			elements = 2*elements + 1
		}
	default:
		return frame, fmt.Errorf("redistest: not a RESP frame: %q", line)
	}
	for range elements {
		if frame, err = appendFrame(frame, br); err != nil {
			return frame, err
		}
	}
	return frame, nil
}

// readLine returns a line that is not empty, with its end.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, fmt.Errorf("redistest: not a RESP line: %q", line)
	}
	return line, nil
}

// length returns the length in the first line of a frame: -1 for a null.
func length(line []byte) (int, error) {
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err == nil && (n < -1 || n > 1<<29) {
		err = fmt.Errorf("redistest: length %d out of range", n)
	}
	return n, err
}

// readCommand reads one command. It returns its bytes, and its arguments with the
// name in upper case.
func readCommand(br *bufio.Reader) (raw []byte, args []string, err error) {
	raw, err = readFrame(br)
	if err != nil {
		return nil, nil, err
	}
	rest := bufio.NewReader(bytes.NewReader(raw))
	head, err := readLine(rest)
	if err != nil {
		return nil, nil, err
	}
	n, err := length(head)
	if head[0] != '*' || err != nil || n < 1 {
		return nil, nil, fmt.Errorf("redistest: not a command: %q", raw)
	}
	for range n {
		head, err := readLine(rest)
		if err != nil {
			return nil, nil, err
		}
		n, err := length(head)
		if head[0] != '$' || err != nil || n < 0 {
			return nil, nil, fmt.Errorf("redistest: not a command: %q", raw)
		}
		arg := make([]byte, n+2)
		if _, err := io.ReadFull(rest, arg); err != nil {
			return nil, nil, err
		}
		args = append(args, string(arg[:n]))
	}
	args[0] = strings.ToUpper(args[0])
	return raw, args, nil
}
