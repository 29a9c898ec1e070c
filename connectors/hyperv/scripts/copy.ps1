# deskyard-script: copy 1
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$here = [Environment]::CurrentDirectory
$failed = [IO.Path]::Combine($here, 'copy-failed.json')
try {
    $text = [IO.File]::ReadAllText([IO.Path]::Combine($here, 'copy.json'))
    $job = ConvertFrom-Json -InputObject $text
    foreach ($disk in @($job.disks)) {
        if (Test-Path -LiteralPath $disk.target) { continue }
        if (Test-Path -LiteralPath $disk.part) { Remove-Item -LiteralPath $disk.part -Force }
        Convert-VHD -Path $disk.source -DestinationPath $disk.part -VHDType Dynamic
        Move-Item -LiteralPath $disk.part -Destination $disk.target
    }
} catch {
    $told = @{
        id = [string]$_.FullyQualifiedErrorId
        hresult = [int]$_.Exception.GetBaseException().HResult
        msg = [string]$_.Exception.Message
    }
    [IO.File]::WriteAllText($failed, (ConvertTo-Json -InputObject $told -Compress))
}
