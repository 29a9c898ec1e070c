# deskyard-script: inventory 1
# What this host shows. Never changes anything. Parameters: budget_s, with_machines.
param($p)
$watch = [Diagnostics.Stopwatch]::StartNew()
$faults = @()

function Get-Rights {
    $me = [Security.Principal.WindowsIdentity]::GetCurrent()
    $who = New-Object System.Security.Principal.WindowsPrincipal($me)
    $admins = [Security.Principal.SecurityIdentifier]'S-1-5-32-544'
    $hyperv = [Security.Principal.SecurityIdentifier]'S-1-5-32-578'
    @{ account = [string]$me.Name; admin = [bool]$who.IsInRole($admins); hyperv_admin = [bool]$who.IsInRole($hyperv) }
}

function Get-HostFacts {
    $there = Get-VMHost
    $system = Get-CimInstance -ClassName 'Win32_OperatingSystem'
    @{
        name = [string]$env:COMPUTERNAME
        vcpus = [int]$there.LogicalProcessorCount
        memory_mib = [long]($there.MemoryCapacity / 1MB)
        product = [string]$system.Caption
        version = [string]$system.Version
    }
}

function Get-ClusterFacts {
    if ($null -eq (Get-Command -Name 'Get-Cluster' -ErrorAction SilentlyContinue)) { return $null }
    $service = Get-Service -Name 'ClusSvc' -ErrorAction SilentlyContinue
    if (($null -eq $service) -or ([string]$service.Status -ne 'Running')) { return $null }
    $cluster = Get-Cluster
    $nodes = @(Get-ClusterNode | ForEach-Object { @{ name = [string]$_.Name; state = [string]$_.State } })
    @{ name = [string]$cluster.Name; nodes = $nodes }
}

function Get-Volumes($cluster) {
    $found = @()
    foreach ($volume in @(Get-Volume)) {
        if (([string]$volume.DriveType -ne 'Fixed') -or (-not $volume.DriveLetter)) { continue }
        $letter = ([string]$volume.DriveLetter).Trim([char]0)
        if (-not $letter) { continue }
        $found += @{
            path = $letter + ':\'
            label = [string]$volume.FileSystemLabel
            size_mib = [long]($volume.Size / 1MB)
            free_mib = [long]($volume.SizeRemaining / 1MB)
            shared = $false
        }
    }
    if ($null -ne $cluster) {
        foreach ($shared in @(Get-ClusterSharedVolume)) {
            foreach ($info in @($shared.SharedVolumeInfo)) {
                $found += @{
                    path = [string]$info.FriendlyVolumeName
                    label = [string]$shared.Name
                    size_mib = [long]($info.Partition.Size / 1MB)
                    free_mib = [long]($info.Partition.FreeSpace / 1MB)
                    shared = $true
                }
            }
        }
    }
    $found
}

function Get-Adapters {
    $byMachine = @{}
    foreach ($adapter in @(Get-VMNetworkAdapter -VMName '*')) {
        $id = ([guid]$adapter.VMId).ToString()
        if (-not $byMachine.ContainsKey($id)) { $byMachine[$id] = @() }
        $addresses = @($adapter.IPAddresses | ForEach-Object { [string]$_ })
        $byMachine[$id] += @{
            switch = [string]$adapter.SwitchName
            mac = [string]$adapter.MacAddress
            addresses = $addresses
        }
    }
    $byMachine
}

function Get-Disks {
    $byMachine = @{}
    foreach ($drive in @(Get-VMHardDiskDrive -VMName '*')) {
        $id = ([guid]$drive.VMId).ToString()
        if (-not $byMachine.ContainsKey($id)) { $byMachine[$id] = @() }
        $byMachine[$id] += @([string]$drive.Path)
    }
    $byMachine
}

function Get-SizeMib($path) {
    try { return [long]((Get-VHD -Path $path).Size / 1MB) } catch { return [long]0 }
}

function Get-MachineFacts($vm, $adapters, $disks) {
    $id = ([guid]$vm.Id).ToString()
    $notes = [string]$vm.Notes
    $state = [string]$vm.State
    $paths = @()
    if ($disks.ContainsKey($id)) { $paths = @($disks[$id]) }
    $sizes = @()
    # Sizes are asked only of what may be a template: every Get-VHD opens the file.
    $mayBeTemplate = ($state -eq 'Off') -and ((-not $notes.Contains('"installation"')) -or $notes.Contains('"template"'))
    if ($mayBeTemplate) { foreach ($path in $paths) { $sizes += @(Get-SizeMib $path) } }
    $nics = @()
    if ($adapters.ContainsKey($id)) { $nics = @($adapters[$id]) }
    @{
        id = $id
        name = [string]$vm.Name
        state = $state
        heartbeat = [string]$vm.Heartbeat
        generation = [int]$vm.Generation
        vcpus = [int]$vm.ProcessorCount
        memory_mib = [long]($vm.MemoryStartup / 1MB)
        notes = $notes
        checkpoints = [bool]($null -ne $vm.ParentSnapshotId)
        disks = $paths
        disk_mib = $sizes
        nics = $nics
    }
}

$rights = Get-Rights
$cluster = $null
try { $cluster = Get-ClusterFacts } catch { $faults += @('the cluster: ' + [string]$_.FullyQualifiedErrorId) }
$facts = Get-HostFacts
$machines = @()
$switches = @()
$volumes = @()
if ($p.with_machines) {
    $adapters = Get-Adapters
    $disks = Get-Disks
    $all = @(Get-VM)
    foreach ($vm in $all) {
        if ($watch.Elapsed.TotalSeconds -ge $p.budget_s) {
            $faults += @('time ran out after ' + $machines.Count + ' of ' + $all.Count + ' machines')
            break
        }
        try { $machines += @(Get-MachineFacts $vm $adapters $disks) } catch {
            $faults += @('a machine: ' + [string]$_.FullyQualifiedErrorId)
        }
    }
}
foreach ($switch in @(Get-VMSwitch)) {
    $switches += @(@{ name = [string]$switch.Name; type = [string]$switch.SwitchType })
}
try { $volumes = @(Get-Volumes $cluster) } catch {
    $faults += @('the volumes: ' + [string]$_.FullyQualifiedErrorId)
}
@{
    rights = $rights
    host = $facts
    cluster = $cluster
    machines = $machines
    switches = $switches
    volumes = $volumes
    faults = $faults
}
