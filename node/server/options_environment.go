package server

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// variablePrefix begins every variable of a node's options.
const variablePrefix = "STOCKMESH_"

// othersVariables begin with our prefix too. Stockctl's are often set where a node is,
// and tests start nodes that inherit theirs.
var (
	othersVariables = []string{
		"STOCKMESH_ENDPOINTS", "STOCKMESH_TOKEN", "STOCKMESH_TOKEN_FILE", "STOCKMESH_CLIENT_CERT", "STOCKMESH_CLIENT_KEY",
	}
	othersPrefixes = []string{"STOCKMESH_TEST_", "STOCKMESH_CLUSTERTEST_", "STOCKMESH_BENCH_", "STOCKMESH_IMAGE_"}
)

// serviceLink matches what Kubernetes sets in each pod for a service whose name begins
// with stockmesh, as STOCKMESH_SERVICE_HOST and STOCKMESH_PORT_8080_TCP_ADDR.
var serviceLink = regexp.MustCompile(`^STOCKMESH_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// variable is the environment's name of an option.
func variable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readEnvironment sets what the environment has. A variable that is empty, as templates
// leave behind, is not given: it can't take away what the file says, as --jwks.
func (o Origins) readEnvironment(f *pflag.FlagSet, environ []string) error {
	flags, names := make(map[string]string), []string(nil)
	f.VisitAll(func(flag *pflag.Flag) {
		flags[variable(flag.Name)] = flag.Name
		names = append(names, variable(flag.Name))
	})
	var errs []error
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, variablePrefix) {
			continue
		}
		flag, known := flags[name]
		switch {
		case !known && !ofOthers(name):
			errs = append(errs, fmt.Errorf("%s: no option has this variable%s", name, nearest(name, names)))
		case known && value != "":
			errs = append(errs, o.set(f, flag, value, name))
		}
	}
	return errors.Join(errs...)
}

func ofOthers(name string) bool {
	return slices.Contains(othersVariables, name) || serviceLink.MatchString(name) ||
		slices.ContainsFunc(othersPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
