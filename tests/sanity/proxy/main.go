// Command proxy stands between csi-sanity and the driver, for tests only.
//
// csi-sanity runs its volume cases only against a plugin that also provisions volumes. Kubelet
// provisions ours inline, so the proxy forwards Identity and Node calls to the driver and adds what
// kubelet would have added: a controller whose volumes carry pod info, and the read-only flag.
// It prints "ready" when the driver answers Probe and the proxy listens.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// identity is the driver's Identity service plus CONTROLLER_SERVICE.
type identity struct {
	csi.UnimplementedIdentityServer
	driver csi.IdentityClient
}

// node is the driver's Node service; publishes are made read-only.
type node struct {
	csi.UnimplementedNodeServer
	driver csi.NodeClient
}

// controller hands out volumes that look like kubelet's inline ones. It stores names only.
type controller struct {
	csi.UnimplementedControllerServer
	podInfo map[string]string
	volumes sync.Map // volume id -> nothing
}

// === identity ===

func (i *identity) GetPluginInfo(ctx context.Context, r *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return i.driver.GetPluginInfo(ctx, r)
}

func (i *identity) Probe(ctx context.Context, r *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return i.driver.Probe(ctx, r)
}

func (i *identity) GetPluginCapabilities(ctx context.Context, r *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	caps, err := i.driver.GetPluginCapabilities(ctx, r)
	if err != nil {
		return nil, err
	}
	caps.Capabilities = append(caps.Capabilities, &csi.PluginCapability{
		Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}},
	})
	return caps, nil
}

// === node ===

func (n *node) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	r.Readonly = true
	return n.driver.NodePublishVolume(ctx, r)
}

func (n *node) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return n.driver.NodeUnpublishVolume(ctx, r)
}

func (n *node) NodeGetVolumeStats(ctx context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	return n.driver.NodeGetVolumeStats(ctx, r)
}

func (n *node) NodeGetCapabilities(ctx context.Context, r *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return n.driver.NodeGetCapabilities(ctx, r)
}

func (n *node) NodeGetInfo(ctx context.Context, r *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return n.driver.NodeGetInfo(ctx, r)
}

func (n *node) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return n.driver.NodeStageVolume(ctx, r)
}

func (n *node) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return n.driver.NodeUnstageVolume(ctx, r)
}

func (n *node) NodeExpandVolume(ctx context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	return n.driver.NodeExpandVolume(ctx, r)
}

// === controller ===

func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{
		Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{
			Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		}},
	}}}, nil
}

func (c *controller) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if r.GetName() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "name and volume_capabilities are required")
	}
	sum := sha256.Sum256([]byte(r.GetName()))
	id := "csi-" + hex.EncodeToString(sum[:]) // the form of kubelet's ids
	c.volumes.Store(id, nil)
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:      id,
		CapacityBytes: r.GetCapacityRange().GetRequiredBytes(),
		VolumeContext: c.podInfo,
	}}, nil
}

func (c *controller) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if r.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume_id is required")
	}
	c.volumes.Delete(r.GetVolumeId())
	return &csi.DeleteVolumeResponse{}, nil
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if r.GetVolumeId() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "volume_id and volume_capabilities are required")
	}
	if _, ok := c.volumes.Load(r.GetVolumeId()); !ok {
		return nil, status.Error(codes.NotFound, "no such volume")
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: r.GetVolumeCapabilities()},
	}, nil
}

// === main ===

func run() error {
	driver := flag.String("driver", "", "path of the driver's csi.sock")
	listen := flag.String("listen", "", "path of the socket to serve csi-sanity on")
	podUID := flag.String("pod-uid", "", "pod UID: the one in the mount directory's path")
	podName := flag.String("pod-name", "sanity-0", "pod name")
	namespace := flag.String("namespace", "default", "pod namespace")
	serviceAccount := flag.String("service-account", "sanity", "pod ServiceAccount")
	wait := flag.Duration("wait", 30*time.Second, "how long to wait for the driver")
	flag.Parse()
	if *driver == "" || *listen == "" || *podUID == "" {
		return fmt.Errorf("--driver, --listen and --pod-uid are required")
	}

	conn, err := grpc.NewClient("unix:"+*driver,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer conn.Close()
	id := csi.NewIdentityClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), *wait)
	defer cancel()
	if _, err := id.Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("the driver on %s does not answer Probe: %w", *driver, err)
	}

	socket, err := net.Listen("unix", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, &identity{driver: id})
	csi.RegisterNodeServer(server, &node{driver: csi.NewNodeClient(conn)})
	csi.RegisterControllerServer(server, &controller{podInfo: map[string]string{
		"csi.storage.k8s.io/pod.name":            *podName,
		"csi.storage.k8s.io/pod.namespace":       *namespace,
		"csi.storage.k8s.io/pod.uid":             *podUID,
		"csi.storage.k8s.io/serviceAccount.name": *serviceAccount,
		"csi.storage.k8s.io/ephemeral":           "true",
	}})
	fmt.Println("ready")
	return server.Serve(socket)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}
