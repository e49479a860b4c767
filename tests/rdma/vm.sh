# Sourced by tests/rdma/run: a virtual machine with soft-RoCE that runs what was built on the host.
#
# Debian's kernel package is unpacked into a cache folder, not installed. The guest sees the host's root
# read-only, so libraries and binaries are the host's own; QEMU emulates, so neither a device nor KVM is needed.

# Modules that the guest needs, in order; what these depend on is found by modprobe.
readonly VM_MODULES=(virtio_pci virtio_rng 9p 9pnet_virtio overlay veth sch_netem crc32_generic rdma_rxe rdma_ucm ib_uverbs)

# vm_kernel: the package of the newest kernel for this machine. Not the cloud flavour, which has no rdma_rxe.
vm_kernel() {
  apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}'
}

# vm_prepare CACHE KERNEL: leaves CACHE/KERNEL/{vmlinux,initrd.gz}. Fails with the reason on stderr.
vm_prepare() {
  local cache=$1 kernel=$2 here folder
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  folder=$cache/$kernel
  mkdir -p "$folder" || return 1
  if [[ ! -s $folder/vmlinux ]]; then
    (cd "$folder" && apt-get download -q "$kernel" >/dev/null && dpkg -x "$kernel"_*.deb unpacked &&
      rm -f "$kernel"_*.deb) || return 1
    vm_unpack_kernel "$folder/unpacked/boot/vmlinuz-${kernel#linux-image-}" "$folder/vmlinux" || return 1
    depmod -b "$folder/unpacked" "${kernel#linux-image-}" || return 1
  fi
  vm_make_initrd "$folder" "${kernel#linux-image-}" "$here/init"
}

# vm_unpack_kernel VMLINUZ VMLINUX: the ELF file inside, which boots without the time to unpack it each run.
vm_unpack_kernel() {
  local start
  start=$(LC_ALL=C grep -aobPm1 '\xFD7zXZ\x00' "$1" | head -n 1 | cut -d: -f1)
  [[ -n $start ]] || { echo "no xz stream in $1" >&2 && return 1; }
  # Bytes follow the stream, which xz reports as an error when the stream itself was good.
  tail -c +$((start + 1)) "$1" | xz -dc --single-stream >"$2.new" 2>/dev/null
  [[ $(head -c 4 "$2.new" | tail -c 3) == ELF ]] || { echo "no kernel in $1" >&2 && return 1; }
  mv "$2.new" "$2"
}

# vm_make_initrd FOLDER VERSION INIT
vm_make_initrd() {
  local folder=$1 version=$2 init=$3 tree module number=100 path
  tree=$(mktemp -d)
  mkdir -p "$tree"/{bin,proc,sys,dev,modules,host,memory,root}
  cp /bin/busybox "$tree/bin/"
  install -m 755 "$init" "$tree/init"
  for module in "${VM_MODULES[@]}"; do
    modprobe -S "$version" -d "$folder/unpacked" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$tree.list"
  while read -r path; do
    cp "$path" "$tree/modules/$((number++))-${path##*/}"
  done <"$tree.list"
  (cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$folder/initrd.$$" &&
    mv "$folder/initrd.$$" "$folder/initrd.gz"
  local status=$?
  rm -rf "$tree" "$tree.list"
  return $status
}

# vm_run FOLDER EXCHANGE SECONDS: boots, runs EXCHANGE/command, waits. EXCHANGE/status has its exit status if
# the machine came so far; EXCHANGE/{setup,output,console} what was printed. Never longer than SECONDS.
vm_run() {
  local folder=$1 exchange=$2 seconds=$3
  # A CPU of x86-64-v2: those with more are several times slower to emulate. /dev/kvm may open without working,
  # so the host's modules decide.
  local accelerator=tcg cpu=Nehalem
  if [[ -w /dev/kvm && (-d /sys/module/kvm_intel || -d /sys/module/kvm_amd) ]]; then
    accelerator=kvm cpu=host
  fi
  timeout -k 5 "$seconds" qemu-system-x86_64 -M q35,accel=$accelerator -cpu $cpu -smp 2 -m 1024 \
    -nodefaults -no-user-config -display none -no-reboot -serial stdio \
    -kernel "$folder/vmlinux" -initrd "$folder/initrd.gz" \
    -append "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr" \
    -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=host,mount_tag=host \
    -fsdev local,id=exchange,path="$exchange",security_model=none \
    -device virtio-9p-pci,fsdev=exchange,mount_tag=exchange \
    -device virtio-rng-pci </dev/null >"$exchange/console" 2>&1
}
