# deskyard-script: mirrors 1
# What Hyper-V Replica does for the machines of this host. Never changes anything.
param($p)

# deskyard-part: rights

function Get-Mirror($one) {
    $at = ''
    # No time: nothing has been sent yet.
    if ($null -ne $one.LastReplicationTime) {
        $at = [string]([datetime]$one.LastReplicationTime).ToUniversalTime().ToString('o')
    }
    @{
        id = ([guid]$one.VMId).ToString()
        name = [string]$one.VMName
        mode = [string]$one.ReplicationMode
        state = [string]$one.ReplicationState
        health = [string]$one.ReplicationHealth
        server = [string]$one.ReplicaServerName
        every_s = [int]$one.ReplicationFrequencySec
        at = $at
    }
}

# Without rights there is an empty list, whatever is replicated.
if (-not (Test-Rights)) { throw 'Deskyard.NoRights' }
$mirrors = @()
foreach ($one in @(Get-VMReplication)) { $mirrors += @(Get-Mirror $one) }
@{ host = [string]$env:COMPUTERNAME; mirrors = $mirrors }
