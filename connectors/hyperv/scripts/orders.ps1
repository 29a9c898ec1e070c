# deskyard-script: orders 1
# Carries out a list of orders and answers each. Every order looks before each step, so it may come again at any time.
# Parameters: installation, folder, budget_s, copy_command, orders (each: op, key and what the op needs).
# Answers: key, state (done, running, absent, waiting, failed), step, percent, fault and what the order has as result.
param($p)
$watch = [Diagnostics.Stopwatch]::StartNew()
# deskyard-part: rights
# deskyard-part: machines

# --- folders: one for each machine that was made here, named by the order's key ---

function Get-Root($o, $master) {
    if ($o.storage) {
        if (-not (Test-Path -LiteralPath $o.storage)) { throw 'Deskyard.NoStorage' }
        return [IO.Path]::Combine([string]$o.storage, 'Deskyard')
    }
    if ($p.folder) { return [string]$p.folder }
    $first = [string]@($master.disks)[0].path
    if ($first -like 'C:\ClusterStorage\*') {
        return [IO.Path]::Combine('C:\ClusterStorage', $first.Split('\')[2], 'Deskyard')
    }
    return [IO.Path]::Combine([IO.Path]::GetPathRoot($first), 'Deskyard')
}

# Where its disks lie, if that is the folder of this key: it may be in a folder that the settings named once.
function Get-OwnHomes($vm, $key) {
    $name = ([guid]$key).ToString()
    foreach ($drive in @(Get-VMHardDiskDrive -VM $vm)) {
        $folder = [IO.Path]::GetDirectoryName([string]$drive.Path)
        if ($folder -and ([IO.Path]::GetFileName($folder) -eq $name)) { $folder }
    }
}

# --- templates ---

# What a clone has to know of its template; $null if it is not on this host.
function Get-Master($id) {
    $vm = Get-Machine $id
    if ($null -eq $vm) { return $null }
    $mark = Read-Mark $vm.Notes
    if (($null -ne $mark) -and $mark.installation -and ([string]$mark.stage -ne 'template')) {
        throw 'Deskyard.TemplateIsDesktop'
    }
    if ([string]$vm.State -ne 'Off') { throw 'Deskyard.TemplateOn' }
    if ($null -ne $vm.ParentSnapshotId) { throw 'Deskyard.TemplateHasCheckpoints' }
    $disks = @()
    foreach ($drive in @(Get-VMHardDiskDrive -VM $vm)) {
        $path = [string]$drive.Path
        if (@('.vhd', '.vhdx') -notcontains [IO.Path]::GetExtension($path)) { throw 'Deskyard.TemplateDisk' }
        $disks += @(@{ path = $path; bytes = [long](Get-VHD -Path $path).FileSize })
    }
    if ($disks.Count -eq 0) { throw 'Deskyard.TemplateHasNoDisk' }
    $secure = ''
    $secureTemplate = ''
    if ([int]$vm.Generation -eq 2) {
        if ([bool](Get-VMSecurity -VM $vm).TpmEnabled) { throw 'Deskyard.TemplateHasTpm' }
        $firmware = Get-VMFirmware -VM $vm
        $secure = [string]$firmware.SecureBoot
        $secureTemplate = [string]$firmware.SecureBootTemplate
    }
    @{
        generation = [int]$vm.Generation
        vcpus = [int]$vm.ProcessorCount
        memory_mib = [long]($vm.MemoryStartup / 1MB)
        disks = $disks
        networks = @(Get-Adapters $vm)
        secure = $secure
        secure_template = $secureTemplate
    }
}

# --- making a machine ---

# True once all full copies stand. They are made by a task of the host's own: no shell of ours waits for them.
function Copy-Disks($o, $folder, $wanted) {
    $name = 'deskyard-' + ([guid]$o.key).ToString()
    $missing = @($wanted | Where-Object { -not (Test-Path -LiteralPath $_.target) })
    $task = Get-ScheduledTask -TaskName $name -TaskPath $taskPath -ErrorAction SilentlyContinue
    if ($missing.Count -eq 0) {
        if ($null -ne $task) { Unregister-ScheduledTask -TaskName $name -TaskPath $taskPath -Confirm:$false }
        return $true
    }
    $failed = [IO.Path]::Combine($folder, 'copy-failed.json')
    if (Test-Path -LiteralPath $failed) {
        $script:told = ConvertFrom-Json -InputObject ([IO.File]::ReadAllText($failed))
        throw 'Deskyard.CopyFailed'
    }
    if ($null -eq $task) {
        $job = ConvertTo-Json -InputObject @{ disks = @($wanted) } -Depth 4 -Compress
        [IO.File]::WriteAllText([IO.Path]::Combine($folder, 'copy.json'), $job)
        $action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument $p.copy_command -WorkingDirectory $folder
        $who = New-ScheduledTaskPrincipal -UserId 'SYSTEM' -LogonType ServiceAccount -RunLevel Highest
        $null = Register-ScheduledTask -TaskName $name -TaskPath $taskPath -Action $action -Principal $who -Force
        Start-ScheduledTask -TaskName $name -TaskPath $taskPath
    } elseif (@('Running', 'Queued') -notcontains [string]$task.State) {
        Start-ScheduledTask -TaskName $name -TaskPath $taskPath
    }
    return $false
}

function Get-CopiedPercent($wanted) {
    $copied = [long]0
    $all = [long]1
    foreach ($disk in $wanted) {
        $all += [long]$disk.bytes
        if (Test-Path -LiteralPath $disk.target) { $copied += [long]$disk.bytes }
        elseif (Test-Path -LiteralPath $disk.part) { $copied += [long](Get-Item -LiteralPath $disk.part).Length }
    }
    [int][Math]::Min(99, [Math]::Floor(100 * $copied / $all))
}

function Write-Seed($folder, $packed) {
    $path = [IO.Path]::Combine($folder, 'seed.iso')
    if (Test-Path -LiteralPath $path) { return $path }
    $part = [IO.Path]::Combine($folder, 'seed.part')
    $packedBytes = New-Object System.IO.MemoryStream(, [Convert]::FromBase64String([string]$packed))
    $mode = [IO.Compression.CompressionMode]::Decompress
    $unpacked = New-Object System.IO.Compression.GZipStream($packedBytes, $mode)
    $file = [IO.File]::Create($part)
    try { $unpacked.CopyTo($file) } finally { $file.Dispose(); $unpacked.Dispose() }
    Move-Item -LiteralPath $part -Destination $path
    $path
}

function Set-Shape($vm, $o, $master, $paths, $seedPath) {
    $attached = @(Get-VMHardDiskDrive -VM $vm | ForEach-Object { [string]$_.Path })
    foreach ($path in $paths) {
        if ($attached -notcontains $path) { Add-VMHardDiskDrive -VM $vm -Path $path }
    }
    Set-VMProcessor -VM $vm -Count ([int]$o.vcpus)
    Set-VMMemory -VM $vm -DynamicMemoryEnabled $false -StartupBytes ([long]$o.memory_mib * 1MB)
    # New-VM has added an adapter of its own.
    foreach ($adapter in @(Get-VMNetworkAdapter -VM $vm)) { Remove-VMNetworkAdapter -VMNetworkAdapter $adapter }
    foreach ($network in @($o.networks)) {
        if (-not $network.switch) { Add-VMNetworkAdapter -VM $vm; continue }
        if (@(Get-VMSwitch | ForEach-Object { [string]$_.Name }) -notcontains $network.switch) { throw 'Deskyard.NoSwitch' }
        $adapter = Add-VMNetworkAdapter -VM $vm -SwitchName $network.switch -Passthru
        if ([int]$network.vlan -gt 0) {
            Set-VMNetworkAdapterVlan -VMNetworkAdapter $adapter -Access -VlanId ([int]$network.vlan)
        }
    }
    $drives = @(Get-VMDvdDrive -VM $vm)
    if ($seedPath) {
        if ($drives.Count -eq 0) { Add-VMDvdDrive -VM $vm -Path $seedPath }
        else { Set-VMDvdDrive -VMDvdDrive $drives[0] -Path $seedPath }
    }
    if ([int]$master.generation -eq 2) {
        $first = @(Get-VMHardDiskDrive -VM $vm)[0]
        if ($master.secure -eq 'On') {
            Set-VMFirmware -VM $vm -EnableSecureBoot On -SecureBootTemplate $master.secure_template -FirstBootDevice $first
        } else {
            Set-VMFirmware -VM $vm -EnableSecureBoot Off -FirstBootDevice $first
        }
    }
    Set-VM -VM $vm -AutomaticCheckpointsEnabled $false -AutomaticStartAction Nothing -AutomaticStopAction ShutDown -CheckpointType Standard
}

# The machine of this order as far as it goes without switching it on; $null while its disks are being copied.
function New-Desktop($o, $master) {
    $key = ([guid]$o.key).ToString()
    $folder = [IO.Path]::Combine((Get-Root $o $master), $key)
    $null = New-Item -ItemType Directory -Path $folder -Force
    $wanted = @()
    $number = 0
    foreach ($disk in @($master.disks)) {
        $ending = [IO.Path]::GetExtension([string]$disk.path)
        $target = [IO.Path]::Combine($folder, ('disk' + $number + $ending))
        $part = [IO.Path]::Combine($folder, ('copying' + $number + $ending))
        $wanted += @(@{ source = [string]$disk.path; target = $target; part = $part; bytes = [long]$disk.bytes })
        $number += 1
    }
    $script:percent = $null
    if ($o.linked) {
        foreach ($disk in $wanted) {
            if (Test-Path -LiteralPath $disk.target) { continue }
            $null = New-VHD -Path $disk.target -ParentPath $disk.source -Differencing
        }
    } elseif (-not (Copy-Disks $o $folder $wanted)) {
        $script:percent = Get-CopiedPercent $wanted
        return $null
    }
    $seedPath = ''
    if ($o.seed) { $seedPath = Write-Seed $folder $o.seed }
    $vm = Get-Machine (Find-Made $p.installation $key)
    if ($null -eq $vm) {
        $name = 'deskyard-' + $key
        $vm = New-VM -Name $name -Generation ([int]$master.generation) -MemoryStartupBytes ([long]$o.memory_mib * 1MB) -NoVHD -Path $folder
        $machines[([guid]$vm.Id).ToString()] = @{ id = ([guid]$vm.Id).ToString(); name = $name; mark = $null }
    }
    $stamp = @{ installation = [string]$p.installation; key = $key }
    Write-Mark $vm (New-Mark $stamp 'making' '' '')
    Set-Shape $vm $o $master @($wanted | ForEach-Object { $_.target }) $seedPath
    Rename-VM -VM $vm -NewName ([string]$o.name)
    $vm = Get-VM -Id $vm.Id
    Write-Mark $vm (New-Mark $stamp 'made' '' '')
    $vm
}

function Get-Running($o, $step) {
    @{ key = $o.key; state = 'running'; step = $step; percent = $script:percent }
}

function Invoke-Clone($o) {
    $vm = Get-Machine (Find-Made $p.installation ([string]$o.key))
    try {
        if (($null -eq $vm) -or (-not (Test-Made $vm))) {
            $master = Get-Master $o.template
            if ($null -eq $master) { $master = $o.master }
            if ($null -eq $master) { return @{ key = $o.key; state = 'absent' } }
            if (-not $o.vcpus) { $o.vcpus = $master.vcpus }
            if (-not $o.memory_mib) { $o.memory_mib = $master.memory_mib }
            if (@($o.networks).Count -eq 0) { $o.networks = @($master.networks) }
            $vm = New-Desktop $o $master
            if ($null -eq $vm) { return Get-Running $o 'copying' }
        }
        Add-ToCluster $vm
        if ($o.power_on) { Start-Machine $vm }
    } catch {
        $problem = $_
        $told = $script:told
        Undo-Making $o
        $script:told = $told
        throw $problem
    }
    Get-Made $o $vm
}

# A machine of its own takes the old one's place: a new disk would leave UEFI variables, saved state and checkpoints.
function Invoke-Recycle($o) {
    $vm = Get-Machine (Find-Made $p.installation ([string]$o.key))
    $old = $null
    if (($null -eq $vm) -or (-not (Test-Made $vm))) {
        $old = Get-Meant $o
        if ($null -eq $old) {
            if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
            throw 'Deskyard.NoMachine'
        }
        $master = Get-Master $o.template
        if ($null -eq $master) { $master = $o.master }
        if ($null -eq $master) { return @{ key = $o.key; state = 'absent'; what = 'template' } }
        if ((Get-State $old) -eq 'Running') { Stop-VM -VM $old -TurnOff -Force }
        $o.vcpus = [int]$old.ProcessorCount
        $o.memory_mib = [long]($old.MemoryStartup / 1MB)
        $o.networks = @(Get-Adapters $old)
        try { $vm = New-Desktop $o $master } catch {
            $problem = $_
            $told = $script:told
            Undo-Making $o
            $script:told = $told
            throw $problem
        }
        if ($null -eq $vm) { return Get-Running $o 'copying' }
        Copy-Share $old $vm
    } elseif ($machines.ContainsKey([string]$o.id)) {
        $old = Get-Meant $o
    }
    $own = @()
    if ($null -ne $old) {
        if ($null -ne $o.stamp) { $own = @(Get-OwnHomes $old ([string]$o.stamp.key)) }
        Remove-Desktop $old
    }
    if (($null -ne $o.stamp) -and ([string]$o.stamp.installation -ceq [string]$p.installation)) {
        Remove-Homes ([string]$o.stamp.key) $own
    }
    Add-ToCluster $vm
    if ($o.power_on) { Start-Machine $vm }
    Get-Made $o $vm
}

function Copy-Share($from, $to) {
    $cpu = Get-VMProcessor -VM $from
    Set-VMProcessor -VM $to -RelativeWeight ([int]$cpu.RelativeWeight) -Reserve ([int]$cpu.Reserve) -Maximum ([int]$cpu.Maximum)
    Set-VMMemory -VM $to -Priority ([int](Get-VMMemory -VM $from).Priority)
}

function Invoke-Delete($o) {
    $isOurs = ($null -ne $o.stamp) -and ([string]$o.stamp.installation -ceq [string]$p.installation)
    if ($o.id) { $vm = Get-Meant $o } else { $vm = Get-Machine (Find-Made $o.stamp.installation ([string]$o.stamp.key)) }
    $wasHere = $null -ne $vm
    $own = @()
    if ($wasHere) {
        Assert-NoClones $o $vm
        if ($isOurs) {
            $own = @(Get-OwnHomes $vm ([string]$o.stamp.key))
            foreach ($folder in (@(Find-Homes ([string]$o.stamp.key)) + $own)) { Assert-Unused $folder $vm }
        }
        Remove-Desktop $vm
    }
    if ($isOurs) {
        $wasHere = $wasHere -or (@(Find-Homes ([string]$o.stamp.key)).Count -gt 0)
        # Locked for some seconds after the machine has gone.
        try { Remove-Homes ([string]$o.stamp.key) $own } catch [System.IO.IOException] { return Get-Running $o 'files' }
    }
    if (-not $wasHere) { return @{ key = $o.key; state = 'absent' } }
    @{ key = $o.key; state = 'done' }
}

# --- power ---

# A machine without a stamp may be somebody's golden image: writing to its disks would destroy every clone.
function Assert-NoClones($o, $vm) {
    if ($null -ne $o.stamp) { return }
    $own = @(Get-VMHardDiskDrive -VM $vm | ForEach-Object { [string]$_.Path })
    foreach ($drive in @(Get-VMHardDiskDrive -VMName '*')) {
        if ($own -contains [string]$drive.Path) { continue }
        if (@('.vhd', '.vhdx', '.avhd', '.avhdx') -notcontains [IO.Path]::GetExtension([string]$drive.Path)) { continue }
        $parent = [string](Get-VHD -Path $drive.Path).ParentPath
        if ($parent -and ($own -contains $parent)) { throw 'Deskyard.HasClones' }
    }
}

function Start-Machine($vm) {
    switch (Get-State $vm) {
        'Running' { return }
        'Starting' { return }
        'Paused' { Resume-VM -VM $vm }
        'Off' { Start-VM -VM $vm }
        'Saved' { Start-VM -VM $vm }
        'FastSaved' { Start-VM -VM $vm }
        default { throw 'Deskyard.NotNow' }
    }
}

function Stop-Machine($vm) {
    switch (Get-State $vm) {
        'Off' { return }
        'Saved' { Remove-VMSavedState -VM $vm }
        'FastSaved' { Remove-VMSavedState -VM $vm }
        default { Stop-VM -VM $vm -TurnOff -Force }
    }
}

function Get-ShutdownComponent($vm) {
    $id = ([guid]$vm.Id).ToString()
    $all = Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName 'Msvm_ShutdownComponent'
    $all | Where-Object { $_.SystemName -eq $id } | Select-Object -First 1
}

# By WMI and not by Stop-VM, which waits for the guest: up to five minutes.
function Send-ToGuest($vm, $method) {
    $component = Get-ShutdownComponent $vm
    if ($null -eq $component) { return $false }
    $arguments = @{ Force = $true; Reason = 'Deskyard' }
    $result = Invoke-CimMethod -InputObject $component -MethodName $method -Arguments $arguments
    @(0, 4096) -contains [int]$result.ReturnValue
}

function Assert-Running($vm) {
    if ((Get-State $vm) -ne 'Running') { throw 'Deskyard.IsOff' }
}

# Leaves a trace before acting: an attempt that finds it does not know whether the guest was restarted.
function Restart-Once($o, $vm) {
    $mark = Read-Mark $vm.Notes
    $reverted = ''
    if ($null -ne $mark) {
        if ([string]$mark.restarted -eq [string]$o.key) { throw 'Deskyard.RestartUnknown' }
        $reverted = [string]$mark.reverted
    }
    Assert-Running $vm
    Write-Mark $vm (New-Mark $o.stamp 'machine' $o.key $reverted)
    try {
        if ($o.action -eq 'reset') { Restart-VM -VM $vm -Force; return }
        if (-not (Send-ToGuest $vm 'InitiateReboot')) { throw 'Deskyard.GuestSilent' }
    } catch {
        # Refused, so it may be asked again.
        Write-Mark $vm (New-Mark $o.stamp 'machine' '' $reverted)
        throw
    }
}

function Invoke-Power($o) {
    $vm = Get-Meant $o
    if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
    $asked = $false
    switch ([string]$o.action) {
        'on' {
            Assert-NoClones $o $vm
            Start-Machine $vm
        }
        'off' { Stop-Machine $vm }
        'shutdown' {
            $state = Get-State $vm
            if (($state -ne 'Off') -and ($o.cut -or (@('Running', 'Stopping') -notcontains $state))) { Stop-Machine $vm }
            elseif ($state -ne 'Off') {
                if ($o.ask) { $asked = [bool](Send-ToGuest $vm 'InitiateShutdown') }
                return @{ key = $o.key; state = 'running'; step = 'shutdown'; asked = $asked }
            }
        }
        'reboot' { Restart-Once $o $vm }
        'reset' { Restart-Once $o $vm }
        'suspend' {
            $state = Get-State $vm
            if (@('Paused', 'Saved', 'FastSaved') -notcontains $state) {
                Assert-Running $vm
                Suspend-VM -VM $vm
            }
        }
        'resume' {
            $state = Get-State $vm
            if ($state -eq 'Off') { throw 'Deskyard.NotSuspended' }
            Start-Machine $vm
        }
        default { throw 'Deskyard.UnknownOrder' }
    }
    @{ key = $o.key; state = 'done'; power = (Get-State $vm) }
}

# --- checkpoints ---

function Find-Checkpoint($vm, $id) {
    Get-VMSnapshot -VM $vm | Where-Object { ([guid]$_.Id).ToString() -eq $id } | Select-Object -First 1
}

function Invoke-Snapshot($o) {
    $vm = Get-Meant $o
    if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
    $name = [string]$o.name + ' [' + ([guid]$o.key).ToString() + ']'
    $taken = Get-VMSnapshot -VM $vm | Where-Object { $_.Name -ceq $name } | Select-Object -First 1
    if ($null -eq $taken) {
        if (Test-Busy $vm) { return Get-Running $o 'snapshot' }
        $taken = Checkpoint-VM -VM $vm -SnapshotName $name -Passthru
    }
    @{ key = $o.key; state = 'done'; snapshot = ([guid]$taken.Id).ToString() }
}

function Invoke-Revert($o) {
    $vm = Get-Meant $o
    if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
    $mark = Read-Mark $vm.Notes
    if (($null -ne $mark) -and ([string]$mark.reverted -eq [string]$o.key)) { return @{ key = $o.key; state = 'done' } }
    $point = Find-Checkpoint $vm ([string]$o.snapshot)
    if ($null -eq $point) { throw 'Deskyard.NoSnapshot' }
    Assert-NoClones $o $vm
    if (Test-Busy $vm) { return Get-Running $o 'revert' }
    Restore-VMSnapshot -VMSnapshot $point -Confirm:$false
    # What comes back is the machine of that time, with the notes of that time.
    Write-Mark (Get-VM -Id $vm.Id) (New-Mark $o.stamp 'machine' '' $o.key)
    @{ key = $o.key; state = 'done' }
}

# Removing is quick; the merge that follows is the host's own work, and the order is running while it lasts.
function Invoke-Forget($o) {
    $vm = Get-Meant $o
    if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
    $point = Find-Checkpoint $vm ([string]$o.snapshot)
    if ($null -ne $point) { Remove-VMSnapshot -VMSnapshot $point -Confirm:$false }
    if (Test-Busy $vm) { return Get-Running $o 'merging' }
    @{ key = $o.key; state = 'done' }
}

# --- size, share, screen ---

function Invoke-Resize($o) {
    $vm = Get-Meant $o
    if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
    $vcpus = [int]$vm.ProcessorCount
    $memory = [long]($vm.MemoryStartup / 1MB)
    if ($o.vcpus) { $vcpus = [int]$o.vcpus }
    if ($o.memory_mib) { $memory = [long]$o.memory_mib }
    if (($vcpus -ne [int]$vm.ProcessorCount) -or ($memory -ne [long]($vm.MemoryStartup / 1MB))) {
        if ([string]$vm.State -ne 'Off') { throw 'Deskyard.IsOn' }
        Set-VMProcessor -VM $vm -Count $vcpus
        Set-VMMemory -VM $vm -StartupBytes ($memory * 1MB)
    }
    @{ key = $o.key; state = 'done' }
}

function Invoke-Share($o) {
    $vm = Get-Meant $o
    if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
    Set-VMProcessor -VM $vm -RelativeWeight ([int]$o.weight) -Reserve ([int]$o.reserve) -Maximum ([int]$o.maximum)
    Set-VMMemory -VM $vm -Priority ([int]$o.priority)
    @{ key = $o.key; state = 'done' }
}

function Invoke-Screen($o) {
    $vm = Get-Meant $o
    if ($null -eq $vm) { return @{ key = $o.key; state = 'absent' } }
    Assert-Running $vm
    $addresses = @()
    foreach ($adapter in @(Get-VMNetworkAdapter -VM $vm)) {
        foreach ($address in @($adapter.IPAddresses)) { $addresses += @([string]$address) }
    }
    @{ key = $o.key; state = 'done'; addresses = $addresses }
}

# --- looking, for orders that concern several hosts ---

function Invoke-Find($o) {
    $id = Find-Made $p.installation ([string]$o.key)
    if (-not $id) { return @{ key = $o.key; state = 'absent' } }
    @{ key = $o.key; state = 'done'; id = $id }
}

function Invoke-Describe($o) {
    $master = Get-Master $o.template
    if ($null -eq $master) { return @{ key = $o.key; state = 'absent' } }
    @{ key = $o.key; state = 'done'; master = $master }
}

# --- one order after the other ---

function Invoke-Order($o) {
    switch ([string]$o.op) {
        'clone' { Invoke-Clone $o }
        'recycle' { Invoke-Recycle $o }
        'delete' { Invoke-Delete $o }
        'power' { Invoke-Power $o }
        'snapshot' { Invoke-Snapshot $o }
        'revert' { Invoke-Revert $o }
        'forget' { Invoke-Forget $o }
        'resize' { Invoke-Resize $o }
        'share' { Invoke-Share $o }
        'screen' { Invoke-Screen $o }
        'find' { Invoke-Find $o }
        'describe' { Invoke-Describe $o }
        default { throw 'Deskyard.UnknownOrder' }
    }
}

function Invoke-One($o) {
    if ($watch.Elapsed.TotalSeconds -ge $p.budget_s) { return @{ key = $o.key; state = 'waiting' } }
    $script:told = $null
    $script:percent = $null
    # Two attempts of one order at once would make two machines.
    $turn = New-Object System.Threading.Mutex($false, ('Global\deskyard-' + ([guid]$o.key).ToString()))
    $isMine = $false
    try {
        try { $isMine = $turn.WaitOne(0) } catch [System.Threading.AbandonedMutexException] { $isMine = $true }
        if (-not $isMine) { return @{ key = $o.key; state = 'running'; step = 'another' } }
        return Invoke-Order $o
    } catch {
        return @{ key = $o.key; state = 'failed'; fault = (Get-Fault $_) }
    } finally {
        if ($isMine) { $turn.ReleaseMutex() }
        $turn.Dispose()
    }
}

if (-not (Test-Rights)) { throw 'Deskyard.NoRights' }
$machines = Read-Machines
$answers = @()
foreach ($order in @($p.orders)) { $answers += @(Invoke-One $order) }
@{ host = [string]$env:COMPUTERNAME; answers = $answers }
