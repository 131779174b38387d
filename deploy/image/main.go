package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// run does what the command line says, and prints the digest of the image.
func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "folder of the programs, corax-linux-ARCH")
	arches := flags.String("arch", "amd64,arm64,arm,riscv64", "architectures, by commas")
	name := flags.String("name", "corax", "name of the image, without tag")
	version := flags.String("version", "dev", "version, and tag of the image")
	output := flags.String("o", "bin/corax-image.tar", "file to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var programs []*program
	for arch := range strings.SplitSeq(*arches, ",") {
		p, err := openProgram(filepath.Join(*bin, "corax-linux-"+arch))
		if err != nil {
			return err
		}
		if p.arch != arch {
			return fmt.Errorf("%s: built for %s", p.path, p.arch)
		}
		programs = append(programs, p)
	}
	l, err := build(programs, *version)
	if err != nil {
		return err
	}
	if err := l.writeFile(*output, *name, *version); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, l.index.Digest)
	return err
}

// writeFile writes the layout whole or not at all.
func (l *layout) writeFile(path, name, version string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := l.write(w, name, version); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
