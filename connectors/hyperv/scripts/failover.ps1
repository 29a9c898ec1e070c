# deskyard-script: failover 1
# Planned failover of one machine by Hyper-V Replica, step by step. Looks before each, so it may be asked again.
param($p)

# deskyard-part: rights

# deskyard-part: machines

$failedOver = @('FailedOverWaitingCompletion', 'FailedOver')

function Get-Replication($vm) {
    $found = @(Get-VMReplication | Where-Object { [guid]$_.VMId -eq [guid]$vm.Id })
    if ($found.Count -eq 0) { throw 'Deskyard.NotReplicated' }
    @{ mode = [string]$found[0].ReplicationMode; state = [string]$found[0].ReplicationState }
}

function Invoke-HandOver {
    $vm = Get-Meant $p
    if ($null -eq $vm) { return @{ state = 'absent' } }
    $told = Get-Replication $vm
    if ($told.mode -ne 'Primary') { throw 'Deskyard.IsReplica' }
    if ($told.state -eq 'PreparedForFailover') { return @{ state = 'done' } }
    if ($told.state -ne 'Replicating') { throw 'Deskyard.NotReplicating' }
    if ((Get-State $vm) -ne 'Off') { throw 'Deskyard.IsOn' }
    # Sends what has not been sent, and returns once it has arrived.
    Start-VMFailover -VM $vm -Prepare -Confirm:$false
    @{ state = 'done' }
}

# Whether the notes of a machine come along with it is not documented: what bears none is known by its id and its mode.
function Get-Replica {
    $vm = Get-Machine $p.id
    if ($null -eq $vm) { return $null }
    if ($null -ne (Read-Mark $vm.Notes)) { return (Get-Meant $p) }
    $vm
}

function Invoke-TakeOver {
    $vm = Get-Replica
    if ($null -eq $vm) { return @{ state = 'absent' } }
    $told = Get-Replication $vm
    if ($told.mode -ne 'Replica') { throw 'Deskyard.IsNoReplica' }
    if ($failedOver -notcontains $told.state) { Start-VMFailover -VM $vm -Confirm:$false }
    if (($null -ne $p.stamp) -and ($null -eq (Read-Mark $vm.Notes))) {
        Write-Mark $vm (New-Mark $p.stamp 'machine' '' '')
    }
    @{ state = 'done' }
}

function Invoke-Reverse {
    $vm = Get-Meant $p
    if ($null -eq $vm) { return @{ state = 'absent' } }
    $told = Get-Replication $vm
    if ($told.mode -eq 'Primary') { return @{ state = 'done' } }
    Set-VMReplication -VM $vm -Reverse -Confirm:$false
    @{ state = 'done' }
}

function Invoke-TakeBack {
    $vm = Get-Replica
    if ($null -eq $vm) { return @{ state = 'absent' } }
    $told = Get-Replication $vm
    # Turns off what runs of a replica; on a primary it lets the machine be started again.
    if (($failedOver + @('PreparedForFailover')) -contains $told.state) { Stop-VMFailover -VM $vm -Confirm:$false }
    @{ state = 'done' }
}

function Invoke-Op {
    switch ([string]$p.op) {
        'hand_over' { Invoke-HandOver }
        'take_over' { Invoke-TakeOver }
        'reverse' { Invoke-Reverse }
        'take_back' { Invoke-TakeBack }
        default { throw 'Deskyard.UnknownOrder' }
    }
}

if (-not (Test-Rights)) { throw 'Deskyard.NoRights' }
$machines = Read-Machines
try { $answer = Invoke-Op } catch { $answer = @{ state = 'failed'; fault = (Get-Fault $_) } }
$answer['host'] = [string]$env:COMPUTERNAME
$answer
