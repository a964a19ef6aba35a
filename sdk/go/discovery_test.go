package claudemesh

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

type discoveryCase struct {
	ID      string            `json:"id"`
	About   string            `json:"about"`
	Daemons map[string]string `json:"daemons"`
	Files   map[string]string `json:"files"`
	Env     map[string]string `json:"env"`
	Cwd     string            `json:"cwd"`
	Args    struct {
		Socket    string `json:"socket"`
		Address   string `json:"address"`
		TokenFile string `json:"token_file"`
		Token     string `json:"token"`
		Mesh      string `json:"mesh"`
	} `json:"args"`
	Expect struct {
		Kind      string   `json:"kind"`
		Path      string   `json:"path"`
		Address   string   `json:"address"`
		TokenFile string   `json:"token_file"`
		Token     string   `json:"token"`
		Error     string   `json:"error"`
		Names     []string `json:"names"`
	} `json:"expect"`
}

func TestEachCaseOfDiscoveryFindsWhatItSays(t *testing.T) {
	content, err := os.ReadFile("../conformance/discovery.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []discoveryCase }
	if err := json.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 20 {
		t.Fatalf("only %d cases", len(file.Cases))
	}
	for _, c := range file.Cases {
		t.Run(c.ID, func(t *testing.T) { c.run(t) })
	}
}

func (c discoveryCase) run(t *testing.T) {
	tmp := t.TempDir()
	in := func(text string) string { return strings.ReplaceAll(text, "${TMP}", tmp) }
	for dir, state := range c.Daemons {
		prepareDaemon(t, filepath.Join(tmp, dir), state)
	}
	for name, text := range c.Files {
		path := filepath.Join(tmp, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c.Cwd == "" {
		c.Cwd = "work"
	}
	cwd := filepath.Join(tmp, c.Cwd)
	if err := os.MkdirAll(cwd, 0o700); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": filepath.Join(tmp, "home")}
	for name, value := range c.Env {
		env[name] = in(value)
	}
	found, err := find(
		address{socket: in(c.Args.Socket), mesh: c.Args.Mesh, tcp: c.Args.Address, tokenFile: in(c.Args.TokenFile), token: c.Args.Token},
		surroundings{func(name string) string { return env[name] }, func() (string, error) { return cwd, nil }},
	)
	if c.Expect.Error != "" {
		var failure *Error
		if !errors.As(err, &failure) || !errors.Is(err, Code(c.Expect.Error)) {
			t.Fatalf("%s: found %+v, %v", c.About, found, err)
		}
		for _, name := range c.Expect.Names {
			if !strings.Contains(failure.Message, name) {
				t.Errorf("%q does not name %s", failure.Message, name)
			}
		}
		if names := strings.Split(failure.Metadata["meshes"], ","); c.Expect.Names != nil && !slices.Equal(names, c.Expect.Names) {
			t.Errorf("meshes are %q", names)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", c.About, err)
	}
	want := address{socket: in(c.Expect.Path), tcp: c.Expect.Address, tokenFile: in(c.Expect.TokenFile), token: c.Expect.Token}
	found.mesh = ""
	if found != want {
		t.Errorf("%s: found %+v, want %+v", c.About, found, want)
	}
}

// prepareDaemon makes the directory of a daemon; a running one holds its lock
// until the test ends.
func prepareDaemon(t *testing.T, dir, state string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if state == "no_lock" {
		return
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	if state == "running" {
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPipeInTheDirectoryHangsNobody(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".claudemesh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, ".claudemesh", "mesh"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := find(address{}, surroundings{func(string) string { return "" }, func() (string, error) { return dir, nil }})
	if !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
}

func TestAnotherUsersFileNamesNoMesh(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, ".claudemesh", "mesh")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("demo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	_, err := find(address{}, surroundings{func(string) string { return "" }, func() (string, error) { return dir, nil }})
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "another user") {
		t.Errorf("got %v", err)
	}
}
