// Counts how often each word of the files below /inputs occurs, and writes /outputs/go.txt.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	counts := map[string]int{}
	err := filepath.WalkDir("/inputs", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, word := range strings.Fields(string(data)) {
			counts[word]++
		}
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	done := make(chan int)
	go func() { time.Sleep(time.Millisecond); done <- len(counts) }()
	fmt.Printf("go: %v %s %d\n", os.Args[1:], os.Getenv("GREETING"), <-done)
	if err := os.WriteFile("/outputs/go.txt", []byte("written by Go\n"), 0o644); err != nil {
		panic(err)
	}
	os.Exit(7)
}
