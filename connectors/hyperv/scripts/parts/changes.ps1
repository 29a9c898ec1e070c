# --- what has changed on a disk since a reference point; part of several ---

# Msvm_ImageManagementService.GetVirtualDiskChanges, which may look at less than it was asked for.
function Get-Changes($path, $limit, $offset, $length) {
    $service = Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName 'Msvm_ImageManagementService'
    $arguments = @{
        Path = [string]$path
        LimitId = [string]$limit
        TargetSnapshotId = ''
        ByteOffset = [uint64]$offset
        ByteLength = [uint64]$length
    }
    $told = Invoke-CimMethod -InputObject $service -MethodName 'GetVirtualDiskChanges' -Arguments $arguments
    if ([int]$told.ReturnValue -ne 0) { throw 'Deskyard.NoChanges' }
    $processed = [long]$told.ProcessedByteLength
    if ($processed -le 0) { throw 'Deskyard.NoChanges' }
    @{
        processed = $processed
        offsets = @($told.ChangedByteOffsets | ForEach-Object { [long]$_ })
        lengths = @($told.ChangedByteLengths | ForEach-Object { [long]$_ })
    }
}
