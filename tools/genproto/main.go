// Command genproto turns protocol/wire.proto into protocol/pb/wire.pb.go.
//
// It is protoc and protoc-gen-go in one pure Go program, with both pinned by this
// module's go.sum, so that whoever has Go gets the same bytes. With -check it writes
// nothing and fails where the committed code is not what it would write.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	source = "protocol/wire.proto"
	module = "github.com/compute-mesh/mesh"
)

func main() {
	root := flag.String("root", "..", "root of the repository")
	check := flag.Bool("check", false, "compare with the committed code instead of writing it")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	var faults []error
	for _, f := range files {
		path := filepath.Join(root, f.GetName())
		if !check {
			faults = append(faults, write(path, f.GetContent()))
			continue
		}
		have, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(have, []byte(f.GetContent())) {
			faults = append(faults, fmt.Errorf("genproto: %s is not what %s makes: generate it again", f.GetName(), source))
		}
	}
	return errors.Join(faults...)
}

func write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// generate compiles the source as protoc does, comments kept, and hands it to the Go
// generator as protoc would.
func generate(root string) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{root}},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), source)
	if err != nil {
		return nil, fmt.Errorf("genproto: %w", err)
	}
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{source},
		Parameter:      proto.String("module=" + module),
		ProtoFile:      []*descriptorpb.FileDescriptorProto{protoutil.ProtoFromFileDescriptor(compiled[0])},
	})
	if err != nil {
		return nil, fmt.Errorf("genproto: %w", err)
	}
	plugin.SupportedFeatures = internal_gengo.SupportedFeatures
	for _, f := range plugin.Files {
		if f.Generate {
			internal_gengo.GenerateFile(plugin, f)
		}
	}
	response := plugin.Response()
	if response.Error != nil {
		return nil, fmt.Errorf("genproto: %s", response.GetError())
	}
	return response.File, nil
}
