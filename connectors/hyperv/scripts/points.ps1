# deskyard-script: points 1
# Consistent points of one machine's disks, and what they leave. Looks before each step, so it may come again at any time.
# Parameters: installation, owner (the installation's tag), budget_s, task_command, op (take, serve, errand, release), id,
# stamp, key, and what the op needs. Answers: host, state (done, running, absent, failed, ended), step, fault, result.
#
# A point is a recovery checkpoint (Msvm_VirtualSystemSnapshotService.CreateSnapshot, 32768), named deskyard-point-OWNER-
# KEY-CONSISTENCY: Hyper-V lets only those become reference points, from which GetVirtualDiskChanges counts. Which
# reference point belongs to which of our keys stands in a line of the machine's Notes, which moves with the machine.
param($p)
$watch = [Diagnostics.Stopwatch]::StartNew()
# deskyard-part: rights
# deskyard-part: machines
# deskyard-part: errands
# deskyard-part: changes

$space = 'root\virtualization\v2'
$prefix = 'deskyard-point-' + [string]$p.owner + '-'

function Test-TimeLeft { $watch.Elapsed.TotalSeconds -lt $p.budget_s }

function Get-Running($step) { @{ state = 'running'; step = $step } }

# --- jobs of the virtual machine management service: what was begun is written down, for whoever comes after us ---

function Get-RecordPath { [IO.Path]::Combine((Get-ErrandFolder ([string]$p.id) 'job'), 'job.json') }

function Write-Record($record) {
    $null = New-ErrandFolder ([string]$p.id) 'job'
    [IO.File]::WriteAllText((Get-RecordPath), (ConvertTo-Json -InputObject $record -Compress))
}

function Remove-Record {
    $folder = [IO.Path]::GetDirectoryName((Get-RecordPath))
    if (Test-Path -LiteralPath $folder) { Remove-Item -LiteralPath $folder -Recurse -Force }
}

function Get-Job($id) {
    $all = Get-CimInstance -Namespace $space -ClassName 'Msvm_ConcreteJob'
    $all | Where-Object { [string]$_.InstanceID -eq $id } | Select-Object -First 1
}

# New, starting, running, suspended, shutting down: everything below 7, completed.
function Test-Goes($job) { ($null -ne $job) -and ([int]$job.JobState -lt 7) }

function Test-GoesOn($id) {
    while (Test-Goes (Get-Job $id)) {
        if (-not (Test-TimeLeft)) { return $true }
        [Threading.Thread]::Sleep(200)
    }
    return $false
}

# InstanceID of what the job has made.
function Get-MadeBy($id, $class) {
    $all = Get-CimInstance -Namespace $space -ClassName 'Msvm_AffectedJobElement'
    foreach ($one in @($all)) {
        if ([string]$one.AffectingElement.InstanceID -ne $id) { continue }
        if ([string]$one.AffectedElement.CimSystemProperties.ClassName -ne $class) { continue }
        return [string]$one.AffectedElement.InstanceID
    }
    return ''
}

function Get-ServiceOf($class) { Get-CimInstance -Namespace $space -ClassName $class | Select-Object -First 1 }

# Carries on with what an earlier call has begun; true if that is not over.
function Test-Unsettled($vm) {
    if (-not (Test-Path -LiteralPath (Get-RecordPath))) { return $false }
    $record = ConvertFrom-Json -InputObject ([IO.File]::ReadAllText((Get-RecordPath)))
    if (Test-GoesOn ([string]$record.job)) { return $true }
    $job = Get-Job ([string]$record.job)
    $well = ($null -ne $job) -and ([int]$job.JobState -eq 7)
    if ([string]$record.what -eq 'take') {
        if ($well) { Set-PointName $vm (Get-MadeBy ([string]$record.job) 'Msvm_VirtualSystemSettingData') ([string]$record.name) }
        Remove-Record
        if ($well -or ([string]$record.key -ne [string]$p.key)) { return $false }
        if (([string]$record.name).EndsWith('-guest')) { throw 'Deskyard.NotQuiet' }
        throw 'Deskyard.PointFailed'
    }
    if ($well) { Add-Kept $vm ([string]$record.key) (Get-MadeBy ([string]$record.job) 'Msvm_VirtualSystemReferencePoint') }
    Remove-Record
    # What cannot become a reference point is no reason to keep a checkpoint: the next point reads everything.
    if (-not $well) { Remove-Point (Find-Point $vm ([string]$record.key)) }
    return $false
}

# --- points ---

function Get-Points($vm) {
    Get-VMSnapshot -VM $vm -SnapshotType Recovery | Where-Object { ([string]$_.Name).StartsWith($prefix) }
}

function Get-PointKey($point) { ([string]$point.Name).Substring($prefix.Length, 36) }

function Find-Point($vm, $key) {
    Get-Points $vm | Where-Object { (Get-PointKey $_) -eq $key } | Select-Object -First 1
}

function Set-PointName($vm, $instance, $name) {
    $id = [string]$instance -replace '^Microsoft:', ''
    $all = @(Get-VMSnapshot -VM $vm -SnapshotType Recovery)
    $found = $all | Where-Object { ([guid]$_.Id).ToString() -eq $id } | Select-Object -First 1
    if ($null -ne $found) { Rename-VMSnapshot -VMSnapshot $found -NewName $name }
}

function Remove-Point($point) {
    if ($null -ne $point) { Remove-VMSnapshot -VMSnapshot $point -Confirm:$false }
}

# True while the job goes on. Consistency: guest (1, its file systems are frozen by VSS or fsfreeze), crash (2), off (2).
function Test-BeginsPoint($vm, $key, $consistency) {
    $level = '2'
    if ($consistency -eq 'guest') { $level = '1' }
    $settings = '<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData"><PROPERTY NAME="ConsistencyLevel" TYPE="uint8">' +
        '<VALUE>' + $level + '</VALUE></PROPERTY><PROPERTY NAME="IgnoreNonSnapshottableDisks" TYPE="boolean">' +
        '<VALUE>FALSE</VALUE></PROPERTY></INSTANCE>'
    $id = ([guid]$vm.Id).ToString()
    $systems = Get-CimInstance -Namespace $space -ClassName 'Msvm_ComputerSystem'
    $system = $systems | Where-Object { [string]$_.Name -eq $id } | Select-Object -First 1
    $arguments = @{ AffectedSystem = $system; SnapshotSettings = $settings; SnapshotType = [uint16]32768 }
    $service = Get-ServiceOf 'Msvm_VirtualSystemSnapshotService'
    $told = Invoke-CimMethod -InputObject $service -MethodName 'CreateSnapshot' -Arguments $arguments
    if ([int]$told.ReturnValue -ne 4096) { throw 'Deskyard.PointFailed' }
    $name = $prefix + $key + '-' + $consistency
    Write-Record @{ what = 'take'; key = $key; name = $name; job = [string]$told.Job.InstanceID }
    Test-Unsettled $vm
}

# --- reference points: what has changed since a point that is gone ---

function Read-Line($vm) {
    foreach ($line in ([string](Get-VM -Id $vm.Id).Notes -split "`n")) {
        if (-not $line.Trim().StartsWith('{"deskyard-points"')) { continue }
        $text = $line.Trim()
        try { return ConvertFrom-Json -InputObject $text } catch { return $null }
    }
    return $null
}

# Key of a point -> its reference point's id, of this installation or all.
function Read-Kept($vm, $owner) {
    $found = @{}
    $told = Read-Line $vm
    if ($null -eq $told) { return $found }
    foreach ($whose in @($told.'deskyard-points'.PSObject.Properties)) {
        if ($owner -and ([string]$whose.Name -ne $owner)) { continue }
        foreach ($one in @($whose.Value.PSObject.Properties)) { $found[[string]$one.Name] = [string]$one.Value }
    }
    $found
}

# Others' entries stay as they are, and so do people's lines.
function Write-Kept($vm, $kept) {
    $vm = Get-VM -Id $vm.Id
    $all = [ordered]@{}
    $told = Read-Line $vm
    if ($null -ne $told) {
        foreach ($whose in @($told.'deskyard-points'.PSObject.Properties)) { $all[[string]$whose.Name] = $whose.Value }
    }
    $all.Remove([string]$p.owner)
    if ($kept.Count -gt 0) { $all[[string]$p.owner] = $kept }
    $lines = @()
    foreach ($line in ([string]$vm.Notes -split "`n")) {
        if (-not $line.Trim().StartsWith('{"deskyard-points"')) { $lines += @($line.TrimEnd()) }
    }
    if ($all.Count -gt 0) { $lines += @(ConvertTo-Json -InputObject @{ 'deskyard-points' = $all } -Depth 4 -Compress) }
    Set-VM -VM $vm -Notes (($lines -join "`n").Trim())
}

function Add-Kept($vm, $key, $reference) {
    if (-not $reference) { return }
    $kept = Read-Kept $vm ([string]$p.owner)
    $kept[$key] = $reference
    Write-Kept $vm $kept
}

function Get-Reference($id) {
    $all = Get-CimInstance -Namespace $space -ClassName 'Msvm_VirtualSystemReferencePoint'
    $all | Where-Object { [string]$_.InstanceID -eq $id } | Select-Object -First 1
}

# True while the job goes on. The checkpoint goes with it.
function Test-BeginsKeeping($vm, $point) {
    $instance = 'Microsoft:' + ([guid]$point.Id).ToString()
    $all = Get-CimInstance -Namespace $space -ClassName 'Msvm_VirtualSystemSettingData'
    $setting = $all | Where-Object { [string]$_.InstanceID -eq $instance } | Select-Object -First 1
    $service = Get-ServiceOf 'Msvm_VirtualSystemSnapshotService'
    $arguments = @{ AffectedSnapshot = $setting; ReferencePointSettings = '' }
    $told = Invoke-CimMethod -InputObject $service -MethodName 'ConvertToReferencePoint' -Arguments $arguments
    if ([int]$told.ReturnValue -ne 4096) {
        Remove-Point $point
        return $false
    }
    Write-Record @{ what = 'keep'; key = (Get-PointKey $point); name = ''; job = [string]$told.Job.InstanceID }
    Test-Unsettled $vm
}

function Remove-Reference($id) {
    $reference = Get-Reference $id
    if ($null -eq $reference) { return }
    $service = Get-ServiceOf 'Msvm_VirtualSystemReferencePointService'
    $arguments = @{ AffectedReferencePoint = $reference }
    $null = Invoke-CimMethod -InputObject $service -MethodName 'DestroyReferencePoint' -Arguments $arguments
}

# Of each disk's tail (GUID\controller\location\type) the id from which its changes count.
function Read-Limits($id) {
    $found = @{}
    $reference = Get-Reference $id
    if ($null -eq $reference) { return $found }
    $disks = @($reference.VirtualDiskIdentifiers)
    $limits = @($reference.ResilientChangeTrackingIdentifiers)
    for ($at = 0; $at -lt [Math]::Min($disks.Count, $limits.Count); $at += 1) {
        if ($limits[$at]) { $found[(Get-Tail $disks[$at])] = [string]$limits[$at] }
    }
    $found
}

# Microsoft:<machine or checkpoint>\<disk>\<controller>\<location>\<type>: all but whose it is.
function Get-Tail($instance) {
    $text = [string]$instance
    $text.Substring($text.IndexOf('\') + 1).ToLowerInvariant()
}

# --- what goes, what stays ---

# True while something of it goes on. $but: the point that stays.
function Test-Cleaning($vm, $but) {
    if (Test-Unsettled $vm) { return $true }
    $keep = @($p.keep)
    foreach ($point in @(Get-Points $vm)) {
        $key = Get-PointKey $point
        if ($key -eq $but) { continue }
        if ($keep -notcontains $key) { Remove-Point $point }
        elseif (Test-BeginsKeeping $vm $point) { return $true }
    }
    $kept = Read-Kept $vm ([string]$p.owner)
    $gone = @($kept.Keys | Where-Object { $keep -notcontains $_ })
    foreach ($key in $gone) {
        Remove-Reference $kept[$key]
        $kept.Remove($key)
    }
    if ($gone.Count -gt 0) { Write-Kept $vm $kept }
    return $false
}

function Stop-Serving($but) {
    foreach ($name in @(Find-Errands ([string]$p.id))) {
        if (($name -eq 'job') -or ($name -eq $but)) { continue }
        $paths = Read-Served $name
        Stop-Errand ([string]$p.id) $name
        # The errand lets go of its disks by itself, unless it was ended.
        foreach ($path in $paths) { Dismount-Left $path }
    }
}

# What the errand has opened, by its own word.
function Read-Served($name) {
    $file = [IO.Path]::Combine((Get-ErrandFolder ([string]$p.id) $name), 'disks.json')
    if (Test-Path -LiteralPath $file) {
        @(ConvertFrom-Json -InputObject ([IO.File]::ReadAllText($file))).paths | ForEach-Object { [string]$_ }
    }
}

function Dismount-Left($path) {
    if (-not (Test-Path -LiteralPath $path)) { return }
    if ($null -ne (Get-VHD -Path $path).DiskNumber) { Dismount-VHD -Path $path }
}

# --- the machine ---

function Get-DiskName($drive) {
    ([string]$drive.ControllerType).ToLowerInvariant() + '-' + [string]$drive.ControllerNumber + '-' + [string]$drive.ControllerLocation
}

function Get-Wanted($vm) {
    $drives = @(Get-VMHardDiskDrive -VM $vm)
    $names = @($drives | ForEach-Object { Get-DiskName $_ })
    foreach ($name in @($p.disks)) { if ($names -notcontains $name) { throw 'Deskyard.NoDisk' } }
    foreach ($drive in $drives) {
        if ((@($p.disks).Count -gt 0) -and (@($p.disks) -notcontains (Get-DiskName $drive))) { continue }
        $ending = [IO.Path]::GetExtension([string]$drive.Path)
        if (@('.vhd', '.vhdx', '.avhd', '.avhdx') -notcontains $ending) { throw 'Deskyard.DiskIsNoFile' }
        $drive
    }
}

function Get-Nics($vm) {
    foreach ($adapter in @(Get-VMNetworkAdapter -VM $vm)) {
        $vlan = 0
        if ([string]$adapter.VlanSetting.OperationMode -eq 'Access') { $vlan = [int]$adapter.VlanSetting.AccessVlanId }
        @{ switch = [string]$adapter.SwitchName; vlan = $vlan; mac = [string]$adapter.MacAddress }
    }
}

# A template, or a machine that is off and not ours, may be somebody's golden image. A checkpoint of it would be merged
# into the disk that clones hang from, on this node or another, and break them all: it is read as it stands.
function Test-ReadAsItStands($vm) {
    $mark = Read-Mark $vm.Notes
    $isTemplate = ($null -ne $mark) -and ([string]$mark.stage -eq 'template')
    (($null -eq $p.stamp) -or $isTemplate) -and ((Get-State $vm) -eq 'Off')
}

function Get-Described($vm, $drives, $files, $consistency, $whole, $limits) {
    $secure = 'Off'
    if ([int]$vm.Generation -eq 2) { $secure = [string](Get-VMFirmware -VM $vm).SecureBoot }
    $disks = @()
    foreach ($drive in $drives) {
        $path = [string]$files[(Get-DiskName $drive)]
        $disks += @(@{
            name = (Get-DiskName $drive)
            bus = ([string]$drive.ControllerType).ToLowerInvariant()
            size = [long](Get-VHD -Path $path).Size
            path = $path
            limit = [string]$limits[(Get-Tail $drive.Id)]
        })
    }
    @{
        state = 'done'
        name = [string]$vm.Name
        generation = [int]$vm.Generation
        vcpus = [int]$vm.ProcessorCount
        memory_mib = [long]($vm.MemoryStartup / 1MB)
        secure = $secure
        consistency = $consistency
        whole = $whole
        disks = $disks
        nics = @(Get-Nics $vm)
    }
}

# Why everything is read, or nothing: then each disk has an id from which its changes count, and it has been tried.
function Get-Whole($vm, $drives, $files, $limits) {
    if (-not $p.since) { return 'first' }
    foreach ($drive in $drives) {
        $limit = $limits[(Get-Tail $drive.Id)]
        if (-not $limit) { return 'forgotten' }
        $path = [string]$files[(Get-DiskName $drive)]
        try { $null = Get-Changes $path $limit 0 65536 } catch { return 'forgotten' }
    }
    return ''
}

# --- ops ---

function Invoke-Take {
    $vm = Get-Stamped $p
    if ($null -eq $vm) { return @{ state = 'absent' } }
    Stop-Serving ''
    $drives = @(Get-Wanted $vm)
    if ($drives.Count -eq 0) { throw 'Deskyard.NothingToRead' }
    if (Test-Cleaning $vm ([string]$p.key)) { return Get-Running 'cleaning' }
    $files = @{}
    if (Test-ReadAsItStands $vm) {
        foreach ($drive in $drives) { $files[(Get-DiskName $drive)] = [string]$drive.Path }
        return Get-Described $vm $drives $files 'off' 'stands' @{}
    }
    $point = Find-Point $vm ([string]$p.key)
    if ($null -eq $point) {
        if (Test-Busy $vm) { return Get-Running 'merging' }
        $consistency = [string]$p.consistency
        if ((Get-State $vm) -eq 'Off') { $consistency = 'off' }
        if (Test-BeginsPoint $vm ([string]$p.key) $consistency) { return Get-Running 'point' }
        $point = Find-Point $vm ([string]$p.key)
        if ($null -eq $point) { throw 'Deskyard.PointFailed' }
    }
    foreach ($drive in @(Get-VMHardDiskDrive -VMSnapshot $point)) { $files[(Get-DiskName $drive)] = [string]$drive.Path }
    $limits = @{}
    if ($p.since) {
        $kept = Read-Kept $vm ([string]$p.owner)
        if ($kept.ContainsKey([string]$p.since)) { $limits = Read-Limits $kept[[string]$p.since] }
    }
    $whole = Get-Whole $vm $drives $files $limits
    $consistency = ([string]$point.Name).Substring($prefix.Length + 37)
    Get-Described $vm $drives $files $consistency $whole $limits
}

function Invoke-Serve {
    Start-Errand ([string]$p.id) ([string]$p.key) $p.errand
    @{ state = 'done' }
}

# The machine's stamp is not asked: what is removed bears our own name, whoever has the machine now.
function Invoke-Release {
    Stop-Serving ''
    $vm = Get-Machine ([string]$p.id)
    if ($null -eq $vm) {
        Remove-Record
        return @{ state = 'absent' }
    }
    if (Test-Cleaning $vm '') { return Get-Running 'cleaning' }
    @{ state = 'done' }
}

function Invoke-Op {
    switch ([string]$p.op) {
        'take' { Invoke-Take }
        'serve' { Invoke-Serve }
        'errand' { Read-Errand ([string]$p.id) ([string]$p.key) }
        'release' { Invoke-Release }
        default { throw 'Deskyard.UnknownOrder' }
    }
}

if (-not (Test-Rights)) { throw 'Deskyard.NoRights' }
$machines = Read-Machines
# Two at once would settle one job twice.
$turn = New-Object System.Threading.Mutex($false, ('Global\deskyard-points-' + ([guid]$p.id).ToString()))
$isMine = $false
try {
    try { $isMine = $turn.WaitOne(0) } catch [System.Threading.AbandonedMutexException] { $isMine = $true }
    if ($isMine) { $answer = Invoke-Op } else { $answer = Get-Running 'another' }
} catch {
    $answer = @{ state = 'failed'; fault = (Get-Fault $_) }
} finally {
    if ($isMine) { $turn.ReleaseMutex() }
    $turn.Dispose()
}
$answer['host'] = [string]$env:COMPUTERNAME
$answer
