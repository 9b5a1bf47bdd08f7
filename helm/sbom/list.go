package main

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"
)

// devel is what the go command writes where it knows no version.
const devel = "(devel)"

// list describes the program: version is its version, "" for what the binary says; made
// is in RFC 3339, "" for no word about it.
func (b *binary) list(version, made string) *cdx.BOM {
	program := b.program(version)
	parts := []cdx.Component{standardLibrary(b.info.GoVersion)}
	for _, m := range b.info.Deps {
		parts = append(parts, module(m))
	}
	slices.SortFunc(parts, func(x, y cdx.Component) int { return strings.Compare(x.BOMRef, y.BOMRef) })

	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp:  made,
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhasePostBuild}},
		Component:  &program,
	}
	bom.Components = &parts
	bom.Dependencies = dependencies(program, parts)
	return bom
}

// program is the binary itself; its hash ties the list to the file.
func (b *binary) program(version string) cdx.Component {
	main := b.info.Main
	if version == "" {
		version = main.Version
	}
	// The package is a place within the module: cmd/node of example.com/m.
	within := strings.Trim(strings.TrimPrefix(b.info.Path, main.Path), "/")
	address := purl(main.Path, version)
	if within != "" {
		address += "#" + within
	}
	c := cdx.Component{
		BOMRef: address, Type: cdx.ComponentTypeApplication,
		Name: path.Base(b.info.Path), Version: version, PackageURL: address,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: b.sha256}},
	}
	properties := []cdx.Property{{Name: "go:package", Value: b.info.Path}}
	for _, s := range b.info.Settings {
		properties = append(properties, cdx.Property{Name: "go:build:" + s.Key, Value: s.Value})
	}
	c.Properties = &properties
	return c
}

// module is one that the program was linked from. Where another stands in for it, the
// list names the other: that is the code to look for holes in.
func module(m *debug.Module) cdx.Component {
	used := m
	var properties []cdx.Property
	if r := m.Replace; r != nil {
		if r.Version == "" { // a folder has no name of its own that means anything elsewhere
			used = &debug.Module{Path: m.Path}
			properties = append(properties, cdx.Property{Name: "go:replaced-by-folder", Value: r.Path})
		} else {
			used = r
		}
		properties = append(properties, cdx.Property{Name: "go:replaces", Value: m.Path + "@" + m.Version})
	}
	// The sum is one over a list of files, as in go.sum: not the hash of any file that
	// could be had, and so not among the hashes.
	if used.Sum != "" {
		properties = append(properties, cdx.Property{Name: "go:h1", Value: used.Sum})
	}
	return library(used.Path, used.Version, properties)
}

// standardLibrary goes by the name that Go's database of vulnerabilities has for it.
func standardLibrary(goVersion string) cdx.Component {
	release, experiments, _ := strings.Cut(goVersion, " ")
	var properties []cdx.Property
	if experiments != "" {
		properties = append(properties, cdx.Property{Name: "go:experiments", Value: experiments})
	}
	return library("stdlib", strings.TrimPrefix(release, "go"), properties)
}

func library(name, version string, properties []cdx.Property) cdx.Component {
	address := purl(name, version)
	c := cdx.Component{
		BOMRef: address, Type: cdx.ComponentTypeLibrary, Scope: cdx.ScopeRequired,
		Name: name, Version: version, PackageURL: address,
	}
	if len(properties) > 0 {
		c.Properties = &properties
	}
	return c
}

// purl is the package URL of a module. Those of type golang are in lower case.
func purl(module, version string) string {
	parts := strings.Split(strings.ToLower(module), "/")
	for i, p := range parts {
		parts[i] = escape(p)
	}
	address := "pkg:golang/" + strings.Join(parts, "/")
	if version == "" || version == devel {
		return address
	}
	return address + "@" + escape(version)
}

// escape keeps what package URLs keep, a space is %20.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// dependencies says that the program needs each part. What the parts need of each other
// is not in a binary.
func dependencies(program cdx.Component, parts []cdx.Component) *[]cdx.Dependency {
	refs := make([]string, 0, len(parts))
	list := []cdx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}
	for _, p := range parts {
		refs = append(refs, p.BOMRef)
		list = append(list, cdx.Dependency{Ref: p.BOMRef})
	}
	return &list
}

// write encodes the list, under a serial number that its content gives it.
func write(w io.Writer, bom *cdx.BOM) error {
	content, err := encode(bom)
	if err != nil {
		return err
	}
	bom.SerialNumber = uuid.NewSHA1(uuid.NameSpaceOID, content).URN()
	if content, err = encode(bom); err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

func encode(bom *cdx.BOM) ([]byte, error) {
	var b bytes.Buffer
	err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cdx.SpecVersion1_6)
	if err != nil {
		return nil, fmt.Errorf("encoding the list: %w", err)
	}
	return b.Bytes(), nil
}
