//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package claudemesh

import "errors"

func isLocked(string) (bool, error) {
	return false, errors.New("this system cannot tell which daemons run")
}
