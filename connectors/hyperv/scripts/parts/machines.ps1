# --- which machines there are and whose they are; part of several scripts ---

$taskPath = '\Deskyard\'

function Read-Mark($notes) {
    foreach ($line in ([string]$notes -split "`n")) {
        $text = $line.Trim()
        if (-not $text.StartsWith('{"deskyard"')) { continue }
        try { return ConvertFrom-Json -InputObject $text } catch { return $null }
    }
    return $null
}

function Write-Mark($vm, $mark) {
    $kept = @()
    foreach ($line in ([string]$vm.Notes -split "`n")) {
        if (-not $line.Trim().StartsWith('{"deskyard"')) { $kept += @($line.TrimEnd()) }
    }
    $lines = @(ConvertTo-Json -InputObject $mark -Compress) + $kept
    $notes = ($lines -join "`n").Trim()
    Set-VM -VM $vm -Notes $notes
}

function New-Mark($stamp, $stage, $restarted, $reverted) {
    $mark = [ordered]@{ deskyard = 1 }
    if ($null -ne $stamp) {
        $mark['installation'] = [string]$stamp.installation
        $mark['key'] = [string]$stamp.key
    }
    if ($stage) { $mark['stage'] = [string]$stage }
    if ($restarted) { $mark['restarted'] = [string]$restarted }
    if ($reverted) { $mark['reverted'] = [string]$reverted }
    $mark
}

# All machines by one query: Get-VM answers an unknown id with an error whose kind differs among versions.
function Read-Machines {
    $found = @{}
    $realized = 'Microsoft:Hyper-V:System:Realized'
    $settings = Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName 'Msvm_VirtualSystemSettingData'
    foreach ($setting in @($settings | Where-Object { $_.VirtualSystemType -eq $realized })) {
        $id = ([guid]$setting.VirtualSystemIdentifier).ToString()
        $notes = (@($setting.Notes) -join "`n")
        $found[$id] = @{ id = $id; name = [string]$setting.ElementName; mark = (Read-Mark $notes) }
    }
    $found
}

# The machine that the order of this key has made or begun, by its mark or by the name it bears until it has one.
function Find-Made($installation, $key) {
    foreach ($seen in @($machines.Values)) {
        if (($null -ne $seen.mark) -and ([string]$seen.mark.key -eq $key)) {
            if ([string]$seen.mark.installation -ceq $installation) { return [string]$seen.id }
        }
        if ($seen.name -eq ('deskyard-' + $key)) { return [string]$seen.id }
    }
    return ''
}

function Get-Machine($id) {
    if ((-not $id) -or (-not $machines.ContainsKey([string]$id))) { return $null }
    Get-VM -Id ([guid]$id)
}

# The machine that is meant, read anew, its stamp compared.
function Get-Stamped($o) {
    $vm = Get-Machine $o.id
    if ($null -eq $vm) { return $null }
    $mark = Read-Mark $vm.Notes
    $installation = ''
    $key = ''
    if ($null -ne $mark) {
        $installation = [string]$mark.installation
        $key = [string]$mark.key
    }
    $wantedInstallation = ''
    $wantedKey = ''
    if ($null -ne $o.stamp) {
        $wantedInstallation = [string]$o.stamp.installation
        $wantedKey = [string]$o.stamp.key
    }
    if (($installation -cne $wantedInstallation) -or ($key -ne $wantedKey)) { throw 'Deskyard.WrongStamp' }
    $vm
}

# The same for what changes a machine: a template's own is never touched.
function Get-Meant($o) {
    $vm = Get-Machine $o.id
    if ($null -eq $vm) { return $null }
    $mark = Read-Mark $vm.Notes
    if (($null -ne $mark) -and ([string]$mark.stage -eq 'template')) { throw 'Deskyard.IsTemplate' }
    Get-Stamped $o
}

function Get-State($vm) {
    [string](Get-VM -Id $vm.Id).State
}

function Test-Busy($vm) {
    $doing = @((Get-VM -Id $vm.Id).OperationalStatus | ForEach-Object { [string]$_ })
    foreach ($word in @('MergingDisks', 'CreatingSnapshot', 'ApplyingSnapshot', 'DeletingSnapshot')) {
        if ($doing -contains $word) { return $true }
    }
    return $false
}

function Test-Inside($path, $folder) {
    $prefix = [IO.Path]::GetFullPath($folder).TrimEnd('\') + '\'
    [IO.Path]::GetFullPath($path).StartsWith($prefix, [StringComparison]::OrdinalIgnoreCase)
}

function Get-Roots {
    $roots = @()
    if ($p.folder) { $roots += @([string]$p.folder) }
    foreach ($volume in @(Get-Volume)) {
        if (([string]$volume.DriveType -ne 'Fixed') -or (-not $volume.DriveLetter)) { continue }
        $letter = ([string]$volume.DriveLetter).Trim([char]0)
        if ($letter) { $roots += @($letter + ':\Deskyard') }
    }
    if (Test-Path -LiteralPath 'C:\ClusterStorage') {
        foreach ($shared in @(Get-ChildItem -LiteralPath 'C:\ClusterStorage' -Directory)) {
            $roots += @([IO.Path]::Combine($shared.FullName, 'Deskyard'))
        }
    }
    $roots | Select-Object -Unique
}

function Find-Homes($key) {
    $name = ([guid]$key).ToString()
    foreach ($root in @(Get-Roots)) {
        $folder = [IO.Path]::Combine($root, $name)
        if (Test-Path -LiteralPath $folder) { $folder }
    }
}

function Remove-Homes($key, $own) {
    $name = 'deskyard-' + ([guid]$key).ToString()
    $task = Get-ScheduledTask -TaskName $name -TaskPath $taskPath -ErrorAction SilentlyContinue
    if ($null -ne $task) {
        Stop-ScheduledTask -TaskName $name -TaskPath $taskPath
        Unregister-ScheduledTask -TaskName $name -TaskPath $taskPath -Confirm:$false
    }
    $folders = @(Find-Homes $key) + @($own) | Select-Object -Unique
    foreach ($folder in @($folders)) {
        if ((-not $folder) -or (-not (Test-Path -LiteralPath $folder))) { continue }
        Assert-Unused $folder $null
        Remove-Item -LiteralPath $folder -Recurse -Force
    }
}

# Nothing in the folder is a disk of a machine other than this one.
function Assert-Unused($folder, $vm) {
    foreach ($drive in @(Get-VMHardDiskDrive -VMName '*')) {
        if (($null -ne $vm) -and ([guid]$drive.VMId -eq [guid]$vm.Id)) { continue }
        if ($drive.Path -and (Test-Inside ([string]$drive.Path) $folder)) { throw 'Deskyard.HasClones' }
    }
}

function Get-Adapters($vm) {
    foreach ($adapter in @(Get-VMNetworkAdapter -VM $vm)) {
        $vlan = 0
        if ([string]$adapter.VlanSetting.OperationMode -eq 'Access') { $vlan = [int]$adapter.VlanSetting.AccessVlanId }
        @{ switch = [string]$adapter.SwitchName; vlan = $vlan }
    }
}

function Test-Made($vm) {
    $mark = Read-Mark $vm.Notes
    ($null -ne $mark) -and (@('made', 'machine', 'template') -contains [string]$mark.stage)
}

function Add-ToCluster($vm) {
    if ([string]$vm.Path -notlike 'C:\ClusterStorage\*') { return }
    if ([bool](Get-VM -Id $vm.Id).IsClustered) { return }
    $null = Add-ClusterVirtualMachineRole -VMId $vm.Id
}

function Remove-FromCluster($vm) {
    if (-not [bool]$vm.IsClustered) { return }
    $null = Remove-ClusterGroup -VMId $vm.Id -RemoveResources -Force
}

function Get-Made($o, $vm) {
    $vm = Get-VM -Id $vm.Id
    $mark = Read-Mark $vm.Notes
    @{
        key = $o.key
        state = 'done'
        id = ([guid]$vm.Id).ToString()
        name = [string]$vm.Name
        power = [string]$vm.State
        disks = @(Get-VMHardDiskDrive -VM $vm | ForEach-Object { [string]$_.Path })
        stamp = @{ installation = [string]$mark.installation; key = [string]$mark.key }
    }
}

function Remove-Desktop($vm) {
    if (@('Off', 'Saved', 'FastSaved') -notcontains (Get-State $vm)) { Stop-VM -VM $vm -TurnOff -Force }
    Remove-FromCluster $vm
    Remove-VM -VM $vm -Force
    $machines.Remove(([guid]$vm.Id).ToString())
}

# What a failed order made: the machine only if it is this order's, the folder in every case.
function Undo-Making($o) {
    $key = ([guid]$o.key).ToString()
    $vm = Get-Machine (Find-Made $p.installation $key)
    if ($null -ne $vm) { Remove-Desktop $vm }
    Remove-Homes $key @()
}

function Get-Fault($problem) {
    $id = [string]$problem.FullyQualifiedErrorId
    $code = [int]$problem.Exception.GetBaseException().HResult
    $message = [string]$problem.Exception.Message
    if (($id -eq 'Deskyard.CopyFailed') -and ($null -ne $script:told)) {
        $id = [string]$script:told.id
        $code = [int]$script:told.hresult
        $message = [string]$script:told.msg
    }
    @{ id = $id; hresult = $code; msg = $message }
}
