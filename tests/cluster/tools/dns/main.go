// CoreDNS with the one plugin that Pods need, which answers for Services and the Pods behind them. ../build.sh builds it.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() {
	// The order in which plugins are asked.
	dnsserver.Directives = []string{"bind", "errors", "kubernetes"}
	coremain.Run()
}
