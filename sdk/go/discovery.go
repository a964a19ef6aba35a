package claudemesh

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// address is where a daemon listens: a socket, or TCP with a token.
type address struct {
	socket           string
	mesh             string // by which the socket was found
	tcp              string
	tokenFile, token string
}

func (a address) String() string {
	if a.tcp != "" {
		return a.tcp
	}
	return a.socket
}

// target is the address as grpc-go takes it.
func (a address) target() string {
	if a.tcp != "" {
		// Without a resolver, which would ask DNS for settings.
		return "passthrough:///" + a.tcp
	}
	return (&url.URL{Scheme: "unix", Path: a.socket}).String()
}

// surroundings are what discovery reads besides its arguments.
type surroundings struct {
	getenv func(string) string
	getwd  func() (string, error)
}

var meshName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// The longest .claudemesh/mesh that is read.
const maxMeshFile = 4096

// find says which daemon to talk to: the first of the explicit arguments, the
// variables, the working directory and the only running daemon.
func find(given address, s surroundings) (address, error) {
	for field, value := range map[string]string{"socket": given.socket, "token_file": given.tokenFile} {
		if strings.ContainsRune(value, 0) {
			return address{}, invalid(field, "holds a NUL")
		}
	}
	if strings.ContainsFunc(given.token, hidden) {
		return address{}, invalid("token", "must be visible ASCII")
	}
	switch {
	case given.socket != "" && (given.tcp != "" || given.mesh != ""), given.tcp != "" && given.mesh != "":
		return address{}, newError(ErrInvalidArgument, "give only one of socket, address and mesh")
	case given.tcp == "" && (given.token != "" || given.tokenFile != ""):
		return address{}, newError(ErrInvalidArgument, "a token was given without an address")
	case given.socket != "":
		return onSocket(address{socket: given.socket})
	case given.tcp != "":
		return onTCP(given, "address")
	case given.mesh != "":
		return ofMesh(given.mesh, "mesh", s)
	}
	if socket := s.getenv("CLAUDEMESH_DAEMON_SOCK"); socket != "" {
		return onSocket(address{socket: socket})
	}
	if tcp := s.getenv("CLAUDEMESH_ADDR"); tcp != "" {
		return onTCP(address{tcp: tcp, tokenFile: s.getenv("CLAUDEMESH_TOKEN_FILE")}, "CLAUDEMESH_ADDR")
	}
	if mesh := s.getenv("CLAUDEMESH_MESH"); mesh != "" {
		return ofMesh(mesh, "CLAUDEMESH_MESH", s)
	}
	mesh, file, err := meshOfDirectory(s)
	if err != nil {
		return address{}, err
	}
	if file != "" {
		return ofMesh(mesh, file, s)
	}
	return onlyRunning(s)
}

func onSocket(a address) (address, error) {
	path, err := filepath.Abs(a.socket)
	if err != nil {
		return address{}, newError(ErrInvalidArgument, "the path of the socket %s cannot be used: %v", a.socket, err)
	}
	a.socket = path
	return a, nil
}

// fits refuses a path that the system would refuse in words that do not help.
func (a address) fits() *Error {
	longest := 107
	if runtime.GOOS != "linux" {
		longest = 103
	}
	if len(a.socket) > longest {
		return newError(ErrSocketPathTooLong, "the path of the socket is longer than the %d bytes that the system allows: %s; use a shorter CLAUDEMESH_HOME",
			longest, a.socket)
	}
	return nil
}

func onTCP(a address, origin string) (address, error) {
	text := strings.TrimSuffix(strings.TrimPrefix(a.tcp, "http://"), "/")
	host, port, err := net.SplitHostPort(text)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || number == 0 || host == "" || strings.ContainsAny(host, "@/ \t\r\n?#%") {
		return address{}, invalid(origin, "%.80q is no address: write host:port, such as 127.0.0.1:47910", a.tcp)
	}
	if (a.token == "") == (a.tokenFile == "") {
		return address{}, newError(ErrInvalidArgument,
			"%s %s needs either a token or the file with it, local_token in the daemon's directory (CLAUDEMESH_TOKEN_FILE)", origin, text)
	}
	a.tcp = text
	return a, nil
}

func ofMesh(mesh, origin string, s surroundings) (address, error) {
	if !meshName.MatchString(mesh) {
		return address{}, invalid(origin, "%.80q is no name of a mesh: 1 to 64 letters, digits, - and _, beginning with a letter or a digit", mesh)
	}
	root, err := root(s)
	if err != nil {
		return address{}, err
	}
	return onSocket(address{socket: filepath.Join(root, "daemon", mesh, "sock"), mesh: mesh})
}

func root(s surroundings) (string, error) {
	if root := s.getenv("CLAUDEMESH_HOME"); root != "" {
		return root, nil
	}
	home := s.getenv("HOME")
	if home == "" {
		return "", newError(ErrInvalidArgument, "neither CLAUDEMESH_HOME nor HOME is set")
	}
	return filepath.Join(home, ".claudemesh"), nil
}

func meshOfDirectory(s surroundings) (mesh, path string, err error) {
	dir, err := s.getwd()
	if err != nil {
		return "", "", newError(ErrInvalidArgument, "the working directory is not known: %v; name the mesh", err)
	}
	for {
		path := filepath.Join(dir, ".claudemesh", "mesh")
		line, err := firstLine(path)
		if err == nil {
			return strings.TrimSpace(line), path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", "", newError(ErrInvalidArgument, "%s cannot be read: %v; name the mesh", path, err)
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", "", nil
		}
		dir = above
	}
}

func firstLine(path string) (string, error) {
	// Whoever made the directory may have put a pipe there, which opens for ever.
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no plain file")
	}
	// Nor is it theirs to say whose mesh is sent to.
	if isForeign(info) {
		return "", errors.New("it belongs to another user")
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	line, err := bufio.NewReader(io.LimitReader(file, maxMeshFile)).ReadString('\n')
	if err == io.EOF {
		err = nil
	}
	return line, err
}

func onlyRunning(s surroundings) (address, error) {
	root, err := root(s)
	if err != nil {
		return address{}, err
	}
	daemons := filepath.Join(root, "daemon")
	entries, err := os.ReadDir(daemons) // by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return address{}, newError(ErrInvalidArgument, "%s cannot be listed: %v; name the mesh", daemons, err)
	}
	var running []string
	for _, entry := range entries {
		held, err := isLocked(filepath.Join(daemons, entry.Name(), "lock"))
		if errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return address{}, newError(ErrInvalidArgument, "whether a daemon runs in %s is not known: %v; name the mesh",
				filepath.Join(daemons, entry.Name()), err)
		}
		if held {
			running = append(running, entry.Name())
		}
	}
	switch len(running) {
	case 0:
		return address{}, newError(ErrDaemonNotRunning, "no daemon runs below %s; start one: claudemesh daemon up", daemons)
	case 1:
		return ofMesh(running[0], daemons, s)
	default:
		names := strings.Join(running, ",")
		several := newError(ErrMeshRequired, "several daemons run: %s; name a mesh, or set CLAUDEMESH_MESH", names)
		several.Metadata = map[string]string{"meshes": names}
		return address{}, several
	}
}
