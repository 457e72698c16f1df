// Opens a group, or reads a blob, with the Go package, and prints what each time took as JSON:
//
//	gopackage open RUNS TOP [SUPPLEMENT ...]
//	gopackage blob RUNS REFERENCE DIGEST
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/containers/common/pkg/supplemented"
	cp "github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
)

type sample struct {
	Wall float64 `json:"wall"`
	CPU  float64 `json:"cpu"`
}

var system = &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func parse(text string) types.ImageReference {
	reference, err := alltransports.ParseImageName(text)
	if err != nil {
		panic(err)
	}
	return reference
}

func open(names []string) error {
	var others []types.ImageReference
	for _, name := range names[1:] {
		others = append(others, parse(name))
	}
	reference := supplemented.Reference(parse(names[0]), others, cp.CopyAllImages, nil)
	source, err := reference.NewImageSource(context.Background(), system)
	if err != nil {
		return err
	}
	return source.Close()
}

func read(name string, wanted digest.Digest) error {
	source, err := parse(name).NewImageSource(context.Background(), system)
	if err != nil {
		return err
	}
	defer source.Close()
	blob, _, err := source.GetBlob(context.Background(), types.BlobInfo{Digest: wanted, Size: -1}, none.NoCache)
	if err != nil {
		return err
	}
	defer blob.Close()
	hash := sha256.New()
	if _, err := io.CopyBuffer(hash, blob, make([]byte, 1<<20)); err != nil {
		return err
	}
	if found := digest.NewDigest(digest.SHA256, hash); found != wanted {
		return fmt.Errorf("read %s instead of %s", found, wanted)
	}
	return nil
}

func main() {
	runs, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	samples := make([]sample, runs)
	for number := range samples {
		cpu, started := cpuSeconds(), time.Now()
		if os.Args[1] == "open" {
			err = open(os.Args[3:])
		} else {
			err = read(os.Args[3], digest.Digest(os.Args[4]))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		samples[number] = sample{time.Since(started).Seconds(), cpuSeconds() - cpu}
	}
	if err := json.NewEncoder(os.Stdout).Encode(samples); err != nil {
		panic(err)
	}
}
