# --- who we are; part of several scripts ---

function Test-Rights {
    $me = [Security.Principal.WindowsIdentity]::GetCurrent()
    $who = New-Object System.Security.Principal.WindowsPrincipal($me)
    $admins = [Security.Principal.SecurityIdentifier]'S-1-5-32-544'
    $hyperv = [Security.Principal.SecurityIdentifier]'S-1-5-32-578'
    [bool]($who.IsInRole($admins) -or $who.IsInRole($hyperv))
}
