# deskyard-script: landing 1
# A machine brought up from disks that the mover brings. Looks before each step, so it may come again at any time.
# Parameters: installation, owner (the installation's tag), folder, budget_s, task_command, op (look, begin, pull, errand,
# finish, clear), key, storage, and what the op needs. Answers: host, state (done, running, failed, ended), fault, result.
param($p)
# deskyard-part: rights
# deskyard-part: machines
# deskyard-part: errands

function Get-Home { [IO.Path]::Combine([string]$p.storage, 'Deskyard', ([guid]$p.key).ToString()) }

function Get-DiskPath($number) { [IO.Path]::Combine((Get-Home), ('disk' + [string]$number + '.vhdx')) }

function Get-ErrandName($number) { ([guid]$p.key).ToString() + '-' + [string]$number }

function Find-Ours { Get-Machine (Find-Made $p.installation ([guid]$p.key).ToString()) }

function Stop-Errands {
    foreach ($name in @(Find-Errands ([string]$p.key))) { Stop-Errand ([string]$p.key) $name }
}

# Nothing of an unfinished landing stays; a finished machine is left alone.
function Clear-Unfinished {
    Stop-Errands
    $vm = Find-Ours
    if (($null -ne $vm) -and (Test-Made $vm)) { return }
    Undo-Making @{ key = [string]$p.key }
}

function Invoke-Look {
    $vm = Find-Ours
    $made = ''
    if (($null -ne $vm) -and (Test-Made $vm)) { $made = ([guid]$vm.Id).ToString() }
    $there = Get-VMHost
    $system = Get-CimInstance -ClassName 'Win32_OperatingSystem'
    @{
        state = 'done'
        made = $made
        storage = [bool](Test-Path -LiteralPath $p.storage)
        switches = @(Get-VMSwitch | ForEach-Object { [string]$_.Name })
        macs = @(Get-VMNetworkAdapter -VMName '*' | ForEach-Object { [string]$_.MacAddress })
        vcpus = [int]$there.LogicalProcessorCount
        free_memory_mib = [long]($system.FreePhysicalMemory / 1024)
    }
}

function Invoke-Begin {
    if (-not (Test-Path -LiteralPath $p.storage)) { throw 'Deskyard.NoStorage' }
    Clear-Unfinished
    $null = New-Item -ItemType Directory -Path (Get-Home) -Force
    @{ state = 'done' }
}

function Invoke-Pull {
    if (-not (Test-Path -LiteralPath (Get-Home))) { throw 'Deskyard.LandingGone' }
    $p.errand.p.target = Get-DiskPath $p.number
    Start-Errand ([string]$p.key) (Get-ErrandName $p.number) $p.errand
    @{ state = 'done' }
}

function Invoke-Errand {
    $told = Read-Errand ([string]$p.key) (Get-ErrandName $p.number)
    if (($told.state -eq 'ended') -and (Test-Path -LiteralPath (Get-DiskPath $p.number))) { return @{ state = 'done' } }
    $told
}

# --- the machine ---

function Add-Disks($vm) {
    $attached = @(Get-VMHardDiskDrive -VM $vm | ForEach-Object { [string]$_.Path })
    foreach ($disk in @($p.disks)) {
        $path = Get-DiskPath $disk.number
        if ($attached -contains $path) { continue }
        Add-VMHardDiskDrive -VM $vm -ControllerType $disk.controller -ControllerNumber ([int]$disk.controller_number) -ControllerLocation ([int]$disk.location) -Path $path
    }
}

function Add-Adapters($vm) {
    # New-VM has added an adapter of its own.
    foreach ($adapter in @(Get-VMNetworkAdapter -VM $vm)) { Remove-VMNetworkAdapter -VMNetworkAdapter $adapter }
    $switches = @(Get-VMSwitch | ForEach-Object { [string]$_.Name })
    foreach ($network in @($p.networks)) {
        if ($network.switch) {
            if ($switches -notcontains $network.switch) { throw 'Deskyard.NoSwitch' }
            $adapter = Add-VMNetworkAdapter -VM $vm -SwitchName $network.switch -Passthru
        } else {
            $adapter = Add-VMNetworkAdapter -VM $vm -Passthru
        }
        if ($network.mac) { Set-VMNetworkAdapter -VMNetworkAdapter $adapter -StaticMacAddress $network.mac }
        if ([int]$network.vlan -gt 0) {
            Set-VMNetworkAdapterVlan -VMNetworkAdapter $adapter -Access -VlanId ([int]$network.vlan)
        }
    }
}

function Set-Shape($vm) {
    Set-VMProcessor -VM $vm -Count ([int]$p.vcpus)
    Set-VMMemory -VM $vm -DynamicMemoryEnabled $false -StartupBytes ([long]$p.memory_mib * 1MB)
    Add-Disks $vm
    Add-Adapters $vm
    if ([int]$p.generation -eq 2) {
        $first = @(Get-VMHardDiskDrive -VM $vm)[0]
        Set-VMFirmware -VM $vm -EnableSecureBoot Off -FirstBootDevice $first
    }
    Set-VM -VM $vm -AutomaticCheckpointsEnabled $false -AutomaticStartAction Nothing -AutomaticStopAction ShutDown -CheckpointType Standard
}

function Invoke-Finish {
    $key = ([guid]$p.key).ToString()
    $vm = Find-Ours
    if (($null -eq $vm) -or (-not (Test-Made $vm))) {
        foreach ($disk in @($p.disks)) {
            if (-not (Test-Path -LiteralPath (Get-DiskPath $disk.number))) { throw 'Deskyard.LandingGone' }
        }
        if ($null -eq $vm) {
            $vm = New-VM -Name ('deskyard-' + $key) -Generation ([int]$p.generation) -MemoryStartupBytes ([long]$p.memory_mib * 1MB) -NoVHD -Path (Get-Home)
        }
        $stamp = @{ installation = [string]$p.installation; key = $key }
        Write-Mark $vm (New-Mark $stamp 'making' '' '')
        Set-Shape $vm
        Rename-VM -VM $vm -NewName ([string]$p.name)
        $vm = Get-VM -Id $vm.Id
        $stage = 'made'
        if ($p.template) { $stage = 'template' }
        Write-Mark $vm (New-Mark $stamp $stage '' '')
    }
    Stop-Errands
    Add-ToCluster $vm
    $made = Get-Made @{ key = $key } $vm
    @{ state = 'done'; id = $made.id }
}

function Invoke-Op {
    switch ([string]$p.op) {
        'look' { Invoke-Look }
        'begin' { Invoke-Begin }
        'pull' { Invoke-Pull }
        'errand' { Invoke-Errand }
        'finish' { Invoke-Finish }
        'clear' {
            Clear-Unfinished
            @{ state = 'done' }
        }
        default { throw 'Deskyard.UnknownOrder' }
    }
}

if (-not (Test-Rights)) { throw 'Deskyard.NoRights' }
$machines = Read-Machines
# Two attempts at once would make two machines.
$turn = New-Object System.Threading.Mutex($false, ('Global\deskyard-' + ([guid]$p.key).ToString()))
$isMine = $false
try {
    try { $isMine = $turn.WaitOne(0) } catch [System.Threading.AbandonedMutexException] { $isMine = $true }
    if ($isMine) { $answer = Invoke-Op } else { $answer = @{ state = 'running'; step = 'another' } }
} catch {
    $answer = @{ state = 'failed'; fault = (Get-Fault $_) }
} finally {
    if ($isMine) { $turn.ReleaseMutex() }
    $turn.Dispose()
}
$answer['host'] = [string]$env:COMPUTERNAME
$answer
